//! The whole pipeline against fakes and a paused clock.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod admission;
mod cgroups;
mod empty_dir_limits;
mod events;
mod eviction;
mod hooks;
mod mounts;
mod probes;
mod resize;
mod restart;
mod restart_all;
mod sessions;
mod static_pods;
mod stats;
mod status;
mod users;
mod world;

use std::time::Duration;

use coracle_core::kubelet::Bootstrap as _;
use coracle_core::ports::ApiError;
use coracle_provider::fake::Call;
use coracle_provider::{ContainerState, Error, ErrorKind, RuntimeService as _, SandboxState};
use serde_json::json;
use tokio::time::{Instant, sleep};
use world::{World, on, one};

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_at_once_is_written_once() {
    let world = World::start().await;
    let created = Instant::now();
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert!(created.elapsed() < Duration::from_millis(20), "took {:?}", created.elapsed());
    assert_eq!(world.patches("a"), ["Running"]);
    for condition in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"]
    {
        assert_eq!(world.condition("a", condition), "True", "{condition}");
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.patches("a").len(), 1, "nothing changed, so nothing is written");
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_shows_pending_first() {
    let world = World::start().await;
    world.fast.set_delay(Call::PullImage, Duration::from_secs(5));
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert_eq!(world.patches("a"), ["Pending", "Running"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_is_written_twice_and_runs_once() {
    let world = World::start().await;
    world.create("a", one("Never", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    assert_eq!(world.condition("a", "Ready"), "False");
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.patches("a"), ["Running", "Succeeded"]);
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
    assert_eq!(world.api.mounted_pods(), 0, "an ended pod gives its volumes back");
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_longer_each_time() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    let mut waits = Vec::new();
    for restart in 0..5 {
        world
            .until("running again", |w| {
                w.fast.containers().iter().any(|c| c.attempt == restart && c.state == ContainerState::Running)
            })
            .await;
        world.fast.exit("a", "main", 1);
        let crashed = Instant::now();
        world.until("restarted", |w| w.fast.containers().iter().any(|c| c.attempt == restart + 1)).await;
        waits.push(crashed.elapsed().as_secs());
    }
    assert_eq!(waits[0], 0, "the first restart is immediate");
    for (wait, at_least) in waits[1..].iter().zip([10, 20, 40, 80]) {
        assert!((at_least..=at_least * 3 / 2 + 1).contains(wait), "{waits:?}");
    }
    world.until("told", |w| w.restarts("a") == 5).await;
    assert!(world.api.reasons().contains(&"BackOff".into()));
    assert!(
        world.fast.containers().len() <= 6,
        "dead containers are collected: {}",
        world.fast.containers().len()
    );
}

#[tokio::test(start_paused = true)]
async fn crash_loop_back_off_is_shown() {
    let world = World::start().await;
    world.create("a", one("OnFailure", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 3);
    world.until("first restart", |w| w.restarts("a") == 1).await;
    world.fast.exit("a", "main", 3);
    world.until("CrashLoopBackOff", |w| w.waiting("a") == "CrashLoopBackOff").await;
    assert_eq!(world.phase("a"), "Running");
    let status = world.api.get("a").unwrap().status.clone().unwrap().container_statuses.unwrap();
    assert_eq!(status[0].last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_gone_from_the_api_only_after_it_is_dead() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.set_stubborn(true);
    let deleted = Instant::now();
    world.delete("a", 7);
    world
        .until("gone", |w| {
            let alive = w.fast.containers().iter().any(|c| c.state == ContainerState::Running);
            assert!(!alive || w.phase("a") != "gone", "deleted while it runs");
            w.phase("a") == "gone"
        })
        .await;
    assert_eq!(deleted.elapsed().as_secs(), 7);
    world
        .until("nothing is left", |w| {
            w.fast.containers().is_empty() && w.fast.sandboxes().is_empty() && w.api.mounted_pods() == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_quick_deletion_is_written_once() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.delete("a", 30);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert_eq!(world.patches("a"), ["Running", "Failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_reaches_a_kill_that_runs() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.set_stubborn(true);
    let deleted = Instant::now();
    world.delete("a", 500);
    sleep(Duration::from_secs(5)).await;
    world.delete("a", 3);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert!(deleted.elapsed() < Duration::from_secs(10), "took {:?}", deleted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_failing_provider_stops_its_own_pods_only() {
    let world = World::start().await;
    world.slow.set_error(Call::List, Some(Error::internal("down")));
    world.slow.set_error(Call::RunSandbox, Some(Error::internal("down")));
    sleep(Duration::from_secs(300)).await;
    world.create("b", on("slow", one("Always", "app")));
    world.create("a", on("fast", one("Always", "app")));
    let created = Instant::now();
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert!(created.elapsed() < Duration::from_millis(50));
    world.delete("a", 1);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert_eq!(world.phase("b"), "Pending");
    world.slow.set_error(Call::List, None);
    world.slow.set_error(Call::RunSandbox, None);
    world.until("the other comes back", |w| w.phase("b") == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_holds_up_its_own_pods_only() {
    const FOR_EVER: Duration = Duration::from_secs(1_000_000);
    let world = World::start().await;
    world.create("before", on("slow", one("Always", "app")));
    world.until("Running", |w| w.phase("before") == "Running").await;
    for count in 1..3 {
        world.slow.exit("before", "main", 1);
        world.until("it restarts", |w| w.restarts("before") == count).await;
    }
    world.slow.set_delay(Call::RemoveContainer, FOR_EVER);
    world.slow.exit("before", "main", 1);
    sleep(Duration::from_secs(60)).await;
    assert!(world.slow.calls(Call::RemoveContainer) > 1, "one of its dead containers is being removed");
    for call in [Call::List, Call::RunSandbox, Call::PullImage, Call::StopContainer, Call::RemoveContainer] {
        world.slow.set_delay(call, FOR_EVER);
    }
    sleep(Duration::from_secs(300)).await;
    for i in 0..3 {
        world.create(&format!("b{i}"), on("slow", one("Always", "app")));
    }
    world.delete("before", 1);
    world.create("a", on("fast", one("Always", "app")));
    let created = Instant::now();
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert!(created.elapsed() < Duration::from_millis(50), "took {:?}", created.elapsed());
    // Its restarts, the instances that it leaves behind, its readiness and its end are nobody else's business.
    for count in 1..4 {
        world.fast.exit("a", "main", 1);
        world.until("it restarts", |w| w.restarts("a") == count).await;
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.fast.containers().len(), 2, "one that runs and the one before it");
    assert_eq!(world.condition("a", "Ready"), "True");
    world.delete("a", 1);
    world.until("gone", |w| w.phase("a") == "gone").await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!((world.fast.containers().len(), world.fast.sandboxes().len()), (0, 0));
    assert_eq!([world.phase("b0"), world.phase("b1"), world.phase("b2")], ["Pending"; 3]);
    assert_ne!(world.phase("before"), "gone", "nobody knows whether it has ended");
}

/// `TestNetworkErrorsWithoutHostNetwork`, with another provider beside it.
#[tokio::test(start_paused = true)]
async fn without_a_network_only_pods_on_the_nodes_network_start() {
    let world = World::start().await;
    let on_node = |mut spec: serde_json::Value| {
        spec["hostNetwork"] = json!(true);
        spec
    };
    world.create("job", on("slow", one("Never", "app")));
    world.until("Running", |w| w.phase("job") == "Running").await;
    world.slow.set_health(None, Some("no CNI configuration"));
    sleep(Duration::from_millis(1)).await;
    world.create("waits", on("slow", one("Always", "app")));
    world.create("host", on("slow", on_node(one("Always", "app"))));
    world.create("other", on("fast", one("Always", "app")));
    world.until("Running", |w| w.phase("host") == "Running" && w.phase("other") == "Running").await;
    world.until("it is told", |w| w.api.reasons().iter().any(|r| r == "NetworkNotReady")).await;
    // Its status says what is known of it, and what has ended is told.
    world.until("it is shown", |w| w.waiting("waits") == "ContainerCreating").await;
    assert_eq!(world.phase("waits"), "Pending");
    assert_eq!(world.condition("waits", "PodReadyToStartContainers"), "False");
    world.slow.exit("job", "main", 0);
    world.until("Succeeded", |w| w.phase("job") == "Succeeded").await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.slow.sandboxes().iter().filter(|s| s.pod.uid == "waits").count(), 0);

    world.slow.set_health(None, None);
    let ready = Instant::now();
    world.until("Running", |w| w.phase("waits") == "Running").await;
    assert!(ready.elapsed() < Duration::from_secs(2), "took {:?}", ready.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_while_its_provider_is_not_ready() {
    let world = World::start().await;
    world.create("a", on("slow", one("Always", "app")));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.slow.set_health(Some("shutting down"), None);
    sleep(Duration::from_secs(1)).await;
    world.create("b", on("slow", one("Always", "app")));
    world.create("c", on("fast", one("Always", "app")));
    world.until("Running", |w| w.phase("c") == "Running").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!([world.phase("a"), world.phase("b"), world.phase("c")], ["Running", "Pending", "Running"]);
    let errors = world.kubelet().runtime_state().errors();
    assert_eq!(errors, ["slow: shutting down"], "the node's condition names who it is");
    world.slow.set_health(None, None);
    world.until("Running", |w| w.phase("b") == "Running").await;
    assert_eq!(world.slow.calls(Call::StartContainer), 2, "nothing was started twice");
    assert!(world.kubelet().runtime_state().errors().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_that_run_once_are_answered_for_as_soon_as_they_have_started() {
    let world = World::without_agent();
    world.create("a", one("Never", "app"));
    world.fast.set_delay(Call::PullImage, Duration::from_millis(1001));
    let (kubelet, updates, _sources) = world.make_agent();
    let begun = Instant::now();
    let (results, _tasks) = kubelet.run_once(updates).await;
    assert!(begun.elapsed() < Duration::from_millis(1004), "took {:?}", begun.elapsed());
    let phases: Vec<_> = results.iter().map(|result| result.status.phase.as_deref()).collect();
    assert_eq!(phases, [Some("Running")]);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_adopts_what_runs() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.create("b", one("Never", "app"));
    world.until("Running", |w| w.phase("a") == "Running" && w.phase("b") == "Running").await;
    world.fast.exit("a", "main", 1);
    world.until("restarted", |w| w.restarts("a") == 1).await;
    world.kill_agent();
    world.fast.exit("b", "main", 0);
    let (starts, patches) = (world.fast.calls(Call::StartContainer), world.patches("a").len());
    world.start_agent();
    world.until("what ended meanwhile is told", |w| w.phase("b") == "Succeeded").await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(world.fast.calls(Call::StartContainer), starts, "nothing is started twice");
    assert_eq!(world.patches("a").len(), patches);
    world.fast.exit("a", "main", 1);
    world.until("the restart count goes on", |w| w.restarts("a") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_forgotten_while_the_agent_was_away_is_taken_down() {
    let mut world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    world.force_delete("a");
    world.start_agent();
    world
        .until("nothing is left", |w| {
            w.fast.containers().is_empty() && w.fast.sandboxes().is_empty() && w.api.mounted_pods() == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_told_and_harms_no_deletion() {
    let world = World::start().await;
    world.create("a", one("Always", "missing"));
    world.until("ErrImagePull", |w| w.waiting("a") == "ErrImagePull").await;
    world.until("ImagePullBackOff", |w| w.waiting("a") == "ImagePullBackOff").await;
    world.delete("a", 30);
    let deleted = Instant::now();
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert!(deleted.elapsed() < Duration::from_secs(1), "took {:?}", deleted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_comes_late_starts_the_pod_at_once() {
    let world = World::start().await;
    *world.api.mount_error.lock() = Some("configmap \"c\" not found".into());
    let mut spec = one("Always", "app");
    spec["volumes"] = json!([{"name": "v", "configMap": {"name": "c"}}]);
    world.create("a", spec);
    world.until("told", |w| w.api.reasons().contains(&"FailedMount".into())).await;
    *world.api.mount_error.lock() = None;
    let there = Instant::now();
    world.api.object_changed("c");
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert!(there.elapsed() < Duration::from_millis(50), "took {:?}", there.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_the_node_does_not_have_is_refused_and_can_be_deleted() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
    world.create("a", spec);
    world.until("Failed", |w| w.phase("a") == "Failed").await;
    let status = world.api.get("a").unwrap().status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("PodFeatureUnsupported"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.fast.calls(Call::RunSandbox), 0);
    world.delete("a", 0);
    world.until("gone", |w| w.phase("a") == "gone").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_node_refuses_and_takes_again_when_there_is_room() {
    let world = World::start().await;
    for i in 0..6 {
        world.create(&format!("p{i}"), one("Always", "app"));
        sleep(Duration::from_millis(10)).await;
    }
    world.until("refused", |w| w.phase("p5") == "Failed").await;
    assert_eq!(world.api.get("p5").unwrap().status.clone().unwrap().reason.as_deref(), Some("OutOfpods"));
    world.delete("p0", 1);
    world.until("gone", |w| w.phase("p0") == "gone").await;
    world.create("p6", one("Always", "app"));
    world.until("Running", |w| w.phase("p6") == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_and_sidecars_stop_last() {
    let world = World::start().await;
    let container = |name: &str| json!({"name": name, "image": "app", "imagePullPolicy": "IfNotPresent"});
    let mut sidecar = container("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    world.create(
        "a",
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
        "initContainers": [container("first"), sidecar], "containers": [container("main")]}),
    );
    let running = |w: &World, name: &str| {
        w.fast.containers().iter().any(|c| c.name == name && c.state == ContainerState::Running)
    };
    world.until("first runs", |w| running(w, "first")).await;
    assert!(!running(&world, "sidecar") && !running(&world, "main"));
    world.fast.exit("a", "first", 0);
    world.until("all run", |w| running(w, "sidecar") && running(w, "main")).await;
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    assert!(!running(&world, "sidecar"), "a sidecar does not hold a finished pod");
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_fails_a_pod_that_never_restarts() {
    let world = World::start().await;
    let container = |name: &str| json!({"name": name, "image": "app", "imagePullPolicy": "IfNotPresent"});
    world.create(
        "a",
        json!({"restartPolicy": "Never",
        "initContainers": [container("first")], "containers": [container("main")]}),
    );
    world.until("first runs", |w| w.fast.calls(Call::StartContainer) == 1).await;
    sleep(Duration::from_millis(5)).await;
    world.fast.exit("a", "first", 1);
    world.until("Failed", |w| w.phase("a") == "Failed").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_found_by_the_audit() {
    let world = World::start().await;
    world.create("a", one("Never", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.lag();
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_written_is_written_later() {
    let world = World::start().await;
    *world.api.patch_error.lock() = Some(ApiError::Unavailable("down".into()));
    world.create("a", one("Never", "app"));
    world.until("it runs all the same", |w| w.fast.calls(Call::StartContainer) == 1).await;
    sleep(Duration::from_secs(60)).await;
    world.fast.exit("a", "main", 0);
    sleep(Duration::from_secs(60)).await;
    *world.api.patch_error.lock() = None;
    world.until("told", |w| w.phase("a") == "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn deleted_before_it_started() {
    let world = World::start().await;
    world.fast.set_delay(Call::PullImage, Duration::from_secs(1000));
    world.create("a", one("Always", "app"));
    sleep(Duration::from_millis(500)).await;
    let deleted = Instant::now();
    world.delete("a", 30);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert!(deleted.elapsed() < Duration::from_secs(1), "took {:?}", deleted.elapsed());
    assert_eq!(world.fast.calls(Call::StartContainer), 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_gone_starts_nothing_more() {
    let mut world = World::start().await;
    world.fast.set_delay(Call::PullImage, Duration::from_secs(5));
    world.create("a", one("Always", "app"));
    world.until("it is being pulled", |w| w.fast.calls(Call::PullImage) == 1).await;
    world.kill_agent();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.fast.calls(Call::CreateContainer), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_provider_that_has_not_answered_yet_is_not_taken_for_dead() {
    let mut world = World::start().await;
    world.create("a", on("slow", one("Always", "app")));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    sleep(Duration::from_millis(1)).await;
    world.slow.set_error(Call::List, Some(Error::new(ErrorKind::Unavailable, "connection refused")));
    world.start_agent();
    sleep(Duration::from_secs(5)).await;
    world.delete("a", 5);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.phase("a"), "Running");
    world.slow.set_error(Call::List, None);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert!(world.slow.containers().iter().all(|c| c.state != ContainerState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_was_asked_for_is_waited_for_before_the_pod_is_dead() {
    let world = World::start().await;
    world.fast.set_delay(Call::RunSandbox, Duration::from_secs(3));
    world.create("a", one("Always", "app"));
    world.until("it is asked for", |w| w.fast.calls(Call::RunSandbox) == 1).await;
    world.delete("a", 30);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert!(world.fast.sandboxes().iter().all(|s| s.state == SandboxState::NotReady));
    sleep(Duration::from_secs(60)).await;
    assert!(world.fast.sandboxes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_goes_on_when_its_sandbox_ended_before_its_start() {
    let world = World::start().await;
    world
        .fast
        .set_error(Call::StartContainer, Some(Error::new(ErrorKind::Unavailable, "connection refused")));
    world.create("a", one("Never", "app"));
    world.until("it was to start", |w| w.fast.calls(Call::StartContainer) == 1).await;
    world.fast.stop_sandbox(&world.fast.sandboxes()[0].id).await.unwrap();
    world.fast.set_error(Call::StartContainer, None);
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    assert_eq!(world.fast.containers().iter().filter(|c| c.started_at.is_some()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_restarts_runs_once_whatever_its_sandbox_does() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["containers"][0]["restartPolicy"] = json!("Never");
    let other = json!({"name": "other", "image": "app", "imagePullPolicy": "IfNotPresent"});
    spec["containers"].as_array_mut().unwrap().push(other);
    world.create("a", spec);
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.fast.exit("a", "main", 0);
    sleep(Duration::from_secs(1)).await;
    world.fast.stop_sandbox(&world.fast.sandboxes()[0].id).await.unwrap();
    world
        .until("the other one runs again", |w| {
            w.fast
                .containers()
                .iter()
                .any(|c| c.name == "other" && c.attempt == 1 && c.state == ContainerState::Running)
        })
        .await;
    assert_eq!(world.fast.containers().iter().filter(|c| c.name == "main").count(), 1);
    sleep(Duration::from_secs(1)).await;
    let statuses = world.api.get("a").unwrap().status.clone().unwrap().container_statuses.unwrap();
    assert!(statuses[1].state.as_ref().unwrap().running.is_some());
}
