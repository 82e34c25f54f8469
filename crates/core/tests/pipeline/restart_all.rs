//! A container whose end restarts all of its pod, and pods that may be active for so long only.

use std::time::Duration;

use coracle_provider::ContainerState;
use coracle_provider::fake::Call;
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

fn containers(world: &World) -> Vec<ContainerStatus> {
    let pod = world.api.get("a").unwrap();
    let status = pod.status.clone().unwrap_or_default();
    let init = status.init_container_statuses.unwrap_or_default();
    init.into_iter().chain(status.container_statuses.unwrap_or_default()).collect()
}

fn restarts(world: &World) -> Vec<i32> {
    containers(world).iter().map(|c| c.restart_count).collect()
}

fn is_running(world: &World, name: &str) -> bool {
    world.fast.containers().iter().any(|c| c.name == name && c.state == ContainerState::Running)
}

#[tokio::test(start_paused = true)]
async fn one_exit_restarts_all_from_the_first_init_container() {
    let world = World::start().await;
    let container = |name: &str| json!({"name": name, "image": "app", "imagePullPolicy": "IfNotPresent"});
    let mut source = container("source");
    source["restartPolicy"] = json!("Never");
    source["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    world.create(
        "a",
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
            "initContainers": [container("init")], "containers": [source, container("other")]}),
    );
    world.until("init runs", |w| is_running(w, "init")).await;
    world.fast.exit("a", "init", 0);
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert_eq!(world.condition("a", "AllContainersRestarting"), "False");

    world.fast.set_stubborn(true);
    let exited = Instant::now();
    world.fast.exit("a", "source", 42);
    world.until("init runs again", |w| is_running(w, "init")).await;
    assert!(exited.elapsed() < Duration::from_secs(3), "nobody is asked: {:?}", exited.elapsed());
    assert!(!is_running(&world, "other"));
    world.until("told", |w| restarts(w) == [1, 1, 1]).await;
    let other = containers(&world).pop().unwrap();
    let waiting = other.state.unwrap().waiting.unwrap();
    let ended = other.last_state.unwrap().terminated.unwrap();
    assert_eq!(ended.reason.as_deref(), Some("RestartingAllContainers"), "{waiting:?}");
    assert_eq!(world.condition("a", "Initialized"), "True", "it stays so");
    world.fast.exit("a", "init", 0);
    world.until("all run", |w| is_running(w, "source") && is_running(w, "other")).await;
    world.until("shown", |w| containers(w)[1..].iter().all(|c| c.ready)).await;
    assert_eq!((world.phase("a").as_str(), restarts(&world)), ("Running", vec![1, 1, 1]));
    assert_eq!(world.condition("a", "AllContainersRestarting"), "False");
    assert!(world.patches("a").iter().all(|phase| phase == "Pending" || phase == "Running"));

    world.fast.exit("a", "other", 0);
    world.fast.exit("a", "source", 1);
    world.until("Failed", |w| w.phase("a") == "Failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_restarting_as_a_whole_waits_longer_each_time() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["containers"][0]["restartPolicy"] = json!("Always");
    spec["containers"][0]["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    world.create("a", spec);
    let mut waits = Vec::new();
    for restart in 0..4 {
        let starts = restart + 1;
        world
            .until("Running", |w| is_running(w, "main") && w.fast.calls(Call::StartContainer) == starts)
            .await;
        world.fast.exit("a", "main", 42);
        let ended = Instant::now();
        world.until("ended", |w| !is_running(w, "main")).await;
        if restart > 0 {
            world.until("told", |w| w.waiting("a") == "CrashLoopBackOff").await;
        }
        world.until("Running again", |w| is_running(w, "main")).await;
        waits.push(ended.elapsed().as_secs());
    }
    assert_eq!(waits[0], 0, "the first time is immediate");
    for (wait, at_least) in waits[1..].iter().zip([10, 20, 40]) {
        assert!((at_least..=at_least * 3 / 2 + 1).contains(wait), "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_ends_at_its_deadline() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["activeDeadlineSeconds"] = json!(30);
    let created = Instant::now();
    world.create("a", spec);
    world.until("Running", |w| w.phase("a") == "Running").await;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(world.phase("a"), "Running");
    world.until("Failed", |w| w.phase("a") == "Failed").await;
    assert!((29..=31).contains(&created.elapsed().as_secs()), "{:?}", created.elapsed());
    let status = world.api.get("a").unwrap().status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(status.message.as_deref(), Some(message));
    assert!(!is_running(&world, "main"));
    let told = world.api.reasons().iter().filter(|r| **r == "DeadlineExceeded").count();
    assert_eq!(told, 1);
}
