//! Hooks after containers start and before they stop.

use std::time::Duration;

use coracle_provider::fake::{Call, FakeExec};
use coracle_provider::{ContainerState, ExecSyncResponse};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

const SECOND: Duration = Duration::from_secs(1);

fn exec(word: &str) -> Value {
    json!({"exec": {"command": [word, "now"]}})
}

fn hooked(policy: &str, hooks: Value) -> Value {
    let mut spec = one(policy, "app");
    spec["containers"][0]["lifecycle"] = hooks;
    spec
}

fn takes(seconds: u64) -> FakeExec {
    FakeExec { delay: Duration::from_secs(seconds), ..FakeExec::exit(0) }
}

fn runs(world: &World, word: &str) -> usize {
    world.fast.executed().iter().filter(|(_, command)| command[0] == word).count()
}

fn state(world: &World, name: &str) -> Option<ContainerState> {
    world.fast.containers().iter().rfind(|c| c.name == name).map(|c| c.state)
}

fn messages(world: &World, reason: &str) -> Vec<String> {
    let events = world.api.events.lock();
    events.iter().filter(|e| e.reason == reason).map(|e| e.message.clone()).collect()
}

async fn running(world: &World, uid: &str) {
    world.until("Running", |w| w.phase(uid) == "Running").await;
}

/// How long it takes until everything of a pod is gone.
async fn time_to_delete(world: &World, uid: &str, grace: i64) -> Duration {
    let deleted = Instant::now();
    world.delete(uid, grace);
    world.until("gone", |w| w.phase(uid) == "gone").await;
    deleted.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_container_is_there_only_after_its_hook() {
    let world = World::start().await;
    world.fast.set_exec("after-start", takes(7));
    let mut spec = hooked("Always", json!({"postStart": exec("after-start")}));
    let mut second = spec["containers"][0].clone();
    second["name"] = json!("second");
    second["lifecycle"] = json!({"postStart": {"httpGet": {"path": "/hook", "port": 80}}});
    spec["containers"].as_array_mut().unwrap().push(second);
    world.create("a", spec);
    world.until("it runs", |w| state(w, "main") == Some(ContainerState::Running)).await;
    let started = Instant::now();
    sleep(5 * SECOND).await;
    assert_eq!(world.phase("a"), "Pending");
    assert_eq!(state(&world, "second"), None, "the next one waits, too");
    running(&world, "a").await;
    assert_eq!(started.elapsed().as_secs(), 7);
    assert_eq!(runs(&world, "after-start"), 1);
    assert_eq!(*world.network.hook_hosts.lock(), ["10.0.0.1:80"], "the pod's address");
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_first_hook_fails_is_stopped_and_started_again() {
    let world = World::start().await;
    let answer = ExecSyncResponse { stderr: b"top secret".to_vec(), exit_code: 3, ..Default::default() };
    world.fast.set_exec("after-start", FakeExec { delay: Duration::ZERO, result: Ok(answer) });
    world.create("a", hooked("Always", json!({"postStart": exec("after-start")})));
    let mut starts = Vec::new();
    for attempt in 0..3 {
        world.until("started", |w| w.fast.containers().iter().any(|c| c.attempt == attempt)).await;
        starts.push(Instant::now());
    }
    let waits: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits[0], 0, "the first time at once");
    assert!((10..=16).contains(&waits[1]), "{waits:?}");
    world.until("told", |w| w.waiting("a") == "CrashLoopBackOff").await;
    let said = world.api.patches.lock().iter().any(|(_, status)| {
        let waiting = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap().waiting;
        waiting.is_some_and(|w| {
            w.reason.as_deref() == Some("PostStartHookError")
                && w.message.unwrap().contains(
                    "Exec lifecycle hook ([after-start now]) for Container \"main\" in Pod \"a_ns(a)\" \
                     failed - error: command 'after-start now' exited with 3: top secret",
                )
        })
    });
    assert!(said, "the status says why");
    assert!(messages(&world, "FailedPostStartHook").iter().all(|m| m == "PostStartHook failed"));
    assert!(messages(&world, "Killing").iter().all(|m| m == "FailedPostStartHook"));
    assert!(world.fast.containers().iter().all(|c| c.state == ContainerState::Exited));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_fails_with_its_hook() {
    let world = World::start().await;
    world.fast.set_exec("after-start", FakeExec::exit(1));
    world.create("a", hooked("Never", json!({"postStart": exec("after-start")})));
    world.until("Failed", |w| w.phase("a") == "Failed").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_hook_is_part_of_the_grace_period() {
    for (hook, grace, stubborn, expected) in [
        (4, 10, false, 4),
        (6, 10, true, 10),
        // However long the hook takes, the container is asked to stop and gets two seconds.
        (9, 10, true, 11),
        (100, 10, false, 10),
        (100, 10, true, 12),
    ] {
        let world = World::start().await;
        world.fast.set_exec("before-stop", takes(hook));
        world.fast.set_stubborn(stubborn);
        world.create("a", hooked("Always", json!({"preStop": exec("before-stop")})));
        running(&world, "a").await;
        let took = time_to_delete(&world, "a", grace).await;
        assert_eq!(took.as_secs(), expected, "hook {hook}, grace {grace}, stubborn {stubborn}");
        assert_eq!(runs(&world, "before-stop"), 1);
        assert!(messages(&world, "FailedPreStopHook").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_last_hook() {
    let world = World::start().await;
    world.create("a", hooked("Always", json!({"preStop": {"sleep": {"seconds": 3}}})));
    running(&world, "a").await;
    assert_eq!(time_to_delete(&world, "a", 30).await.as_secs(), 3);

    *world.network.hook_delay.lock() = 2 * SECOND;
    let get = json!({"httpGet": {"path": "/bye", "port": "admin"}});
    let mut spec = hooked("Always", json!({"preStop": get}));
    spec["containers"][0]["ports"] = json!([{"name": "admin", "containerPort": 9000}]);
    world.create("b", spec.clone());
    running(&world, "b").await;
    assert_eq!(time_to_delete(&world, "b", 30).await.as_secs(), 2);
    spec["hostNetwork"] = json!(true);
    world.create("c", spec);
    running(&world, "c").await;
    assert_eq!(time_to_delete(&world, "c", 30).await.as_secs(), 2);
    assert_eq!(*world.network.hook_hosts.lock(), ["10.0.0.2:9000", "192.0.2.1:9000"]);
    assert!(messages(&world, "FailedPreStopHook").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_last_hook_that_fails_is_told_and_holds_up_nothing() {
    let world = World::start().await;
    world.fast.set_exec("before-stop", FakeExec::exit(1));
    world.create("a", hooked("Always", json!({"preStop": exec("before-stop")})));
    world.create("b", hooked("Always", json!({"preStop": {"tcpSocket": {"port": 80}}})));
    for uid in ["a", "b"] {
        running(&world, uid).await;
        assert!(time_to_delete(&world, uid, 30).await < SECOND);
    }
    assert_eq!(messages(&world, "FailedPreStopHook"), ["PreStopHook failed"; 2]);
}

#[tokio::test(start_paused = true)]
async fn what_ended_by_itself_has_no_last_hook() {
    let world = World::start().await;
    world.create("a", hooked("Never", json!({"preStop": exec("before-stop")})));
    running(&world, "a").await;
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    assert_eq!(runs(&world, "before-stop"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_last_hook_runs_once_however_often_the_end_comes_nearer() {
    // With the two seconds that a container gets after a hook that took all there was.
    for (hook, stubborn, last_grace, expected) in [(20, false, 50, 20), (100, true, 8, 15), (100, true, 1, 8)]
    {
        let world = World::start().await;
        world.fast.set_exec("before-stop", takes(hook));
        world.fast.set_stubborn(stubborn);
        world.create("a", hooked("Always", json!({"preStop": exec("before-stop")})));
        running(&world, "a").await;
        let deleted = Instant::now();
        world.delete("a", 500);
        sleep(3 * SECOND).await;
        world.delete("a", 400);
        sleep(2 * SECOND).await;
        world.delete("a", last_grace);
        world.until("gone", |w| w.phase("a") == "gone").await;
        assert_eq!(runs(&world, "before-stop"), 1);
        assert_eq!(deleted.elapsed().as_secs(), expected, "{hook} {last_grace}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_finds_the_hook_of_a_restart_running() {
    let world = World::start().await;
    world.fast.set_exec("before-stop", takes(10));
    world.network.fail("/alive");
    let mut spec = hooked("Always", json!({"preStop": exec("before-stop")}));
    spec["containers"][0]["livenessProbe"] = json!({"httpGet": {"path": "/alive", "port": 80},
        "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1});
    world.create("a", spec);
    world.until("the hook runs", |w| runs(w, "before-stop") == 1).await;
    let began = Instant::now();
    sleep(4 * SECOND).await;
    world.delete("a", 30);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!((runs(&world, "before-stop"), world.fast.calls(Call::StartContainer)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn last_hooks_of_sidecars_run_at_once_and_each_then_waits_for_its_turn() {
    let world = World::start().await;
    let container = |name: &str| {
        json!({"name": name, "image": "app", "imagePullPolicy": "IfNotPresent",
            "lifecycle": {"preStop": exec(&format!("stop-{name}"))}})
    };
    let sidecar = |name: &str| {
        let mut sidecar = container(name);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    for (name, seconds) in [("main", 5), ("one", 2), ("two", 7)] {
        world.fast.set_exec(&format!("stop-{name}"), takes(seconds));
    }
    world.create(
        "a",
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "initContainers": [sidecar("one"), sidecar("two")], "containers": [container("main")]}),
    );
    running(&world, "a").await;
    world.fast.set_delay(Call::StopContainer, SECOND);
    world.delete("a", 60);
    let deleted = Instant::now();
    world
        .until("all hooks run", |w| ["main", "one", "two"].iter().all(|n| runs(w, &format!("stop-{n}")) == 1))
        .await;
    assert!(deleted.elapsed() < Duration::from_millis(10));
    for (name, seconds) in [("main", 6), ("two", 8), ("one", 9)] {
        world.until("stopped", |w| state(w, name) != Some(ContainerState::Running)).await;
        assert_eq!(deleted.elapsed().as_secs(), seconds, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_knows_any_more_still_has_its_last_hook() {
    let mut world = World::start().await;
    world.create("a", hooked("Always", json!({"preStop": exec("before-stop")})));
    running(&world, "a").await;
    world.kill_agent();
    world.force_delete("a");
    world.start_agent();
    world.until("nothing is left", |w| w.fast.containers().is_empty()).await;
    assert_eq!(runs(&world, "before-stop"), 1);
    let events = world.api.events.lock();
    let killing = events.iter().rfind(|e| e.reason == "Killing").unwrap();
    assert_eq!(killing.object.field_path.as_deref(), Some("spec.containers{main}"));
}
