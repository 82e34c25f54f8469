//! What users are told, word for word as upstream tells it.

use coracle_provider::Error;
use coracle_provider::fake::Call;
use serde_json::json;

use crate::world::{World, one};

/// The Events of one object: `Type Reason fieldPath: message`, each once, in the order in which they first came.
fn told(world: &World, name: &str) -> Vec<String> {
    let mut told = Vec::new();
    for event in world.api.events.lock().iter().filter(|e| e.object.name.as_deref() == Some(name)) {
        let place = event.object.field_path.as_deref().map(|path| format!(" {path}")).unwrap_or_default();
        let line = format!("{} {}{place}: {}", event.event_type.as_str(), event.reason, event.message);
        if !told.contains(&line) {
            told.push(line);
        }
    }
    told
}

fn has(world: &World, line: &str) -> bool {
    told(world, "a").iter().any(|told| told == line)
}

async fn until_told(world: &World, lines: &[&str]) {
    for line in lines {
        let told = |w: &World| has(w, line);
        world.until(line, told).await;
    }
    assert_eq!(told(world, "a")[..lines.len()], *lines);
}

#[tokio::test(start_paused = true)]
async fn the_kubelet_says_that_it_starts() {
    let world = World::start().await;
    world.until("told", |w| !told(w, "node").is_empty()).await;
    assert_eq!(told(&world, "node"), ["Normal Starting: Starting kubelet."]);
    let events = world.api.events.lock();
    assert_eq!((events[0].object.kind.as_deref(), events[0].object.uid.as_deref()), (Some("Node"), None));
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_pod() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.delete("a", 5);
    world.until("gone", |w| w.phase("a") == "gone").await;
    let told = told(&world, "a");
    let rest = &told[told.len() - 3..];
    assert_eq!(
        rest,
        [
            "Normal Created spec.containers{main}: Container created",
            "Normal Started spec.containers{main}: Container started",
            "Normal Killing spec.containers{main}: Stopping container main",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had() {
    let world = World::start().await;
    world.create("a", one("Always", "missing"));
    world.until("backing off", |w| w.waiting("a") == "ImagePullBackOff").await;
    world.until("told", |w| has(w, "Warning Failed spec.containers{main}: Error: ImagePullBackOff")).await;
    let told = told(&world, "a");
    assert_eq!(told[0], "Normal Pulling spec.containers{main}: Pulling image \"missing\"");
    assert!(
        told[1].starts_with("Warning Failed spec.containers{main}: Failed to pull image \"missing\": "),
        "{told:?}"
    );
    assert_eq!(
        told[2..],
        [
            "Warning Failed spec.containers{main}: Error: ErrImagePull",
            "Normal BackOff spec.containers{main}: Back-off pulling image \"missing\"",
            "Warning Failed spec.containers{main}: Error: ImagePullBackOff",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_that_must_not_be_pulled() {
    let world = World::start().await;
    let mut spec = one("Always", "missing");
    spec["containers"][0]["imagePullPolicy"] = json!("Never");
    world.create("a", spec);
    until_told(
        &world,
        &[
            "Warning ErrImageNeverPull spec.containers{main}: Container image \"missing\" is not present with pull \
             policy of Never",
            "Warning Failed spec.containers{main}: Error: ErrImageNeverPull",
        ],
    )
    .await;
    world.until("told", |w| w.waiting("a") == "ErrImageNeverPull").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_keeps_failing() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 1);
    world.until("restarted", |w| w.restarts("a") == 1).await;
    world.fast.exit("a", "main", 1);
    world
        .until("told", |w| {
            has(w, "Warning BackOff spec.containers{main}: Back-off restarting failed container main in pod a_ns(a)")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_is_missing() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "c"}}]);
    world.create("a", spec);
    world
        .until("told", |w| has(w, "Warning Failed spec.containers{main}: Error: configmap \"c\" not found"))
        .await;
    world.until("shown", |w| w.waiting("a") == "CreateContainerConfigError").await;
    let status = world.api.get("a").unwrap().status.clone().unwrap().container_statuses.unwrap().remove(0);
    assert_eq!(status.state.unwrap().waiting.unwrap().message.as_deref(), Some("configmap \"c\" not found"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_set_up() {
    let world = World::start().await;
    let error = "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found";
    *world.api.mount_error.lock() = Some(error.into());
    world.create("a", one("Always", "app"));
    world.until("told", |w| has(w, &format!("Warning FailedMount: {error}"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_fails() {
    let id = "a-sandbox-0-main-0";
    let of_id = format!("container {id} is broken");
    for (call, message, expected) in [
        (Call::RunSandbox, "broken", "Warning FailedCreatePodSandBox: Failed to create pod sandbox: broken"),
        (Call::CreateContainer, "broken", "Warning Failed spec.containers{main}: Error: broken"),
        // The name does not change from one attempt to the next; an id does.
        (
            Call::StartContainer,
            &*of_id,
            "Warning Failed spec.containers{main}: Error: container main is broken",
        ),
    ] {
        let world = World::start().await;
        world.fast.set_error(call, Some(Error::internal(message)));
        world.create("a", one("Always", "app"));
        world.until(expected, |w| has(w, expected)).await;
        if call == Call::StartContainer {
            assert_eq!(world.fast.containers()[0].id, id);
        }
    }
}
