//! What the next agent makes of what the last one left.

use std::time::Duration;

use coracle_provider::ContainerState;
use coracle_provider::fake::Call;
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

fn status(world: &World, uid: &str) -> ContainerStatus {
    world.api.get(uid).unwrap().status.clone().unwrap().container_statuses.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn what_died_with_the_agent_is_told_and_restarted_by_its_policy() {
    let mut world = World::start().await;
    let policies = ["Always", "OnFailure", "Never"];
    for policy in policies {
        world.create(policy, one(policy, "app"));
    }
    world.until("Running", |w| policies.iter().all(|p| w.phase(p) == "Running")).await;
    world.kill_agent();
    for policy in policies {
        world.fast.exit(policy, "main", 137);
    }
    world.start_agent();
    world.until("told", |w| w.phase("Never") == "Failed").await;
    let ended = status(&world, "Never");
    assert_eq!((ended.restart_count, ended.state.unwrap().terminated.unwrap().exit_code), (0, 137));
    for policy in &policies[..2] {
        world.until("it runs again", |w| w.restarts(policy) == 1).await;
        let again = status(&world, policy);
        assert!(again.state.unwrap().running.is_some());
        assert_eq!(again.last_state.unwrap().terminated.unwrap().exit_code, 137);
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.fast.calls(Call::StartContainer), 5, "three, and two of them again");
}

#[tokio::test(start_paused = true)]
async fn what_has_finished_keeps_its_status() {
    let mut world = World::start().await;
    world.create("good", one("Never", "app"));
    world.create("bad", one("Never", "app"));
    world.until("Running", |w| w.phase("good") == "Running" && w.phase("bad") == "Running").await;
    world.fast.exit("good", "main", 0);
    world.fast.exit("bad", "main", 3);
    world.until("ended", |w| w.phase("good") == "Succeeded" && w.phase("bad") == "Failed").await;
    sleep(Duration::from_secs(5)).await;
    let before = ["good", "bad"].map(|uid| world.api.get(uid).unwrap().status.clone());
    for _ in 0..2 {
        world.kill_agent();
        world.start_agent();
        sleep(Duration::from_secs(200)).await;
    }
    assert_eq!(["good", "bad"].map(|uid| world.api.get(uid).unwrap().status.clone()), before);
    assert_eq!(world.fast.calls(Call::StartContainer), 2);
    world.delete("bad", 0);
    world.until("it can still be deleted", |w| w.phase("bad") == "gone").await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_told_is_told_by_the_next_agent() {
    let mut world = World::start().await;
    world.create("a", one("Never", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 7);
    world.kill_agent();
    assert_eq!(world.phase("a"), "Running");
    world.start_agent();
    world.until("told", |w| w.phase("a") == "Failed").await;
    assert_eq!(status(&world, "a").state.unwrap().terminated.unwrap().exit_code, 7);
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_termination_goes_on() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.set_stubborn(true);
    let deleted = Instant::now();
    world.delete("a", 20);
    sleep(Duration::from_secs(5)).await;
    world.kill_agent();
    world.start_agent();
    world
        .until("gone", |w| {
            let alive = w.fast.containers().iter().any(|c| c.state == ContainerState::Running);
            assert!(!alive || w.phase("a") != "gone", "deleted while it runs");
            w.phase("a") == "gone"
        })
        .await;
    // The next agent does not know when the last one began: it gives the whole period once more, as upstream's.
    assert!(deleted.elapsed() <= Duration::from_secs(26), "took {:?}", deleted.elapsed());
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_deleted_while_no_agent_looked_ends() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.create("never-started", one("Always", "missing"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    world.delete("a", 3);
    world.delete("never-started", 3);
    world.start_agent();
    world.until("gone", |w| w.phase("a") == "gone" && w.phase("never-started") == "gone").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_changed_meanwhile_replaces_the_container() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    world.change("a", |pod| pod.spec.as_mut().unwrap().containers[0].image = Some("app:2".into()));
    world.start_agent();
    world.until("replaced", |w| w.restarts("a") == 1).await;
    let running: Vec<_> =
        world.fast.containers().into_iter().filter(|c| c.state == ContainerState::Running).collect();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].image.image, "app:2");
}

#[tokio::test(start_paused = true)]
async fn other_changes_of_the_spec_replace_nothing() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    world.change("a", |pod| {
        pod.metadata.labels.get_or_insert_default().insert("l".into(), "v".into());
        pod.spec.as_mut().unwrap().active_deadline_seconds = None;
        pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(5);
    });
    world.start_agent();
    sleep(Duration::from_secs(200)).await;
    assert_eq!((world.restarts("a"), world.fast.calls(Call::StartContainer)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_at_any_moment_of_a_start_leaves_one_container() {
    // Sandbox, image, container, start: every call takes a while, and the agent dies somewhere in between.
    for died_after in (0..=240).step_by(20) {
        let mut world = World::start().await;
        for call in [Call::RunSandbox, Call::PullImage, Call::CreateContainer, Call::StartContainer] {
            world.fast.set_delay(call, Duration::from_millis(50));
        }
        world.create("a", one("Always", "app"));
        sleep(Duration::from_millis(died_after)).await;
        world.kill_agent();
        world.start_agent();
        world.until("Running", |w| w.phase("a") == "Running").await;
        sleep(Duration::from_secs(200)).await;
        let containers = world.fast.containers();
        let running: Vec<_> = containers.iter().filter(|c| c.state == ContainerState::Running).collect();
        assert_eq!(running.len(), 1, "died after {died_after} ms: {containers:?}");
        assert_eq!(status(&world, "a").container_id.unwrap(), format!("fast://{}", running[0].id));
        // One that was made and never ran counts, as upstream.
        assert!(world.restarts("a") <= 1, "died after {died_after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_overwrote_meanwhile_is_set_right() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    world.change("a", |pod| {
        let status = pod.status.as_mut().unwrap();
        status.phase = Some("Pending".into());
        status.container_statuses = None;
    });
    world.start_agent();
    world.until("set right", |w| w.phase("a") == "Running").await;
    assert!(status(&world, "a").ready);
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
    let conditions = world.api.get("a").unwrap().status.clone().unwrap().conditions.unwrap();
    assert_eq!(json!(conditions.iter().filter(|c| c.type_ == "Ready").count()), json!(1));
}
