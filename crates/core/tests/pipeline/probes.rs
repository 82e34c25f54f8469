//! Probes, from the fake network to the apiserver.

use std::time::Duration;

use coracle_core::ports::ProbeOutcome;
use coracle_provider::fake::{Call, FakeExec};
use coracle_provider::{ContainerState, Error};
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

const SECOND: Duration = Duration::from_secs(1);

fn get(path: &str) -> Value {
    json!({"path": path, "port": 80, "scheme": "HTTP"})
}

/// One container with these probes; thresholds and periods as the apiserver fills them in.
fn probed(policy: &str, probes: &[(&str, Value)]) -> Value {
    let mut spec = one(policy, "app");
    for (kind, probe) in probes {
        spec["containers"][0][kind] = with_defaults(probe);
    }
    spec
}

fn with_defaults(probe: &Value) -> Value {
    let mut filled =
        json!({"periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3});
    for (key, value) in probe.as_object().unwrap() {
        filled[key] = value.clone();
    }
    filled
}

fn container(world: &World, uid: &str) -> ContainerStatus {
    world.api.get(uid).unwrap().status.clone().unwrap().container_statuses.unwrap()[0].clone()
}

fn messages(world: &World, reason: &str) -> Vec<String> {
    let events = world.api.events.lock();
    events.iter().filter(|e| e.reason == reason).map(|e| e.message.clone()).collect()
}

fn is_running(world: &World, name: &str) -> bool {
    world.fast.containers().iter().any(|c| c.name == name && c.state == ContainerState::Running)
}

/// What each patch of a pod said of being ready.
fn readiness(world: &World, uid: &str) -> Vec<(bool, String)> {
    let patches = world.api.patches.lock();
    let of_pod = patches.iter().filter(|(u, _)| u == uid).map(|(_, status)| status);
    of_pod
        .map(|status| {
            let ready = status.container_statuses.as_ref().unwrap()[0].ready;
            let condition = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
            (ready, condition.status.clone())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_ready_at_once_is_known_to_be_ready_at_once() {
    let world = World::start().await;
    let created = Instant::now();
    world.create("a", probed("Always", &[("readinessProbe", json!({"httpGet": get("/ready")}))]));
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    assert!(created.elapsed() < Duration::from_millis(20), "took {:?}", created.elapsed());
    assert_eq!(world.condition("a", "ContainersReady"), "True");
    sleep(95 * SECOND).await;
    let changes = readiness(&world, "a");
    assert_eq!(changes.last(), Some(&(true, "True".into())));
    assert!(changes.len() <= 2, "{changes:?}");
    assert_eq!(world.network.asked("/ready"), 10, "one now, and one every period");
    assert!(messages(&world, "Unhealthy").is_empty());
}

#[tokio::test(start_paused = true)]
async fn readiness_reaches_the_apiserver_in_one_patch_at_once() {
    let world = World::start().await;
    world.network.fail("/ready");
    let probe = json!({"httpGet": get("/ready"), "periodSeconds": 7});
    world.create("a", probed("Always", &[("readinessProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    sleep(60 * SECOND).await;
    assert_eq!(readiness(&world, "a"), [(false, "False".into())]);
    assert!(
        messages(&world, "Unhealthy").iter().all(|m| m.starts_with("Readiness probe failed: HTTP probe"))
    );

    for (is_ready, condition) in [(true, "True"), (false, "False"), (true, "True")] {
        let (asked, patches) = (world.network.asked("/ready"), readiness(&world, "a").len());
        if is_ready {
            world.network.succeed("/ready")
        } else {
            world.network.fail("/ready")
        }
        let tries = if is_ready { 1 } else { 3 };
        world.until("asked", |w| w.network.asked("/ready") == asked + tries).await;
        let found = world.network.asked.lock().last().unwrap().0;
        world.until("told", |w| w.condition("a", "Ready") == condition).await;
        assert!(found.elapsed() < Duration::from_millis(10), "took {:?}", found.elapsed());
        sleep(2 * SECOND).await;
        assert_eq!(readiness(&world, "a").len(), patches + 1, "{:?}", readiness(&world, "a"));
        assert_eq!(readiness(&world, "a").last(), Some(&(is_ready, condition.to_owned())));
    }
    assert_eq!(world.restarts("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_alive_is_restarted() {
    let world = World::start().await;
    let probe = json!({"httpGet": get("/alive"), "initialDelaySeconds": 5});
    world.create("a", probed("Always", &[("livenessProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    let started = Instant::now();
    world.until("asked", |w| w.network.asked("/alive") == 1).await;
    assert_eq!(started.elapsed().as_secs(), 4, "the start itself took a few milliseconds");
    world.network.fail("/alive");
    let failing = Instant::now();
    world.until("restarted", |w| w.fast.containers().iter().any(|c| c.attempt == 1)).await;
    assert_eq!(failing.elapsed().as_secs(), 30, "three failures, one a period");
    world.network.succeed("/alive");
    world.until("told", |w| w.restarts("a") == 1).await;
    let status = container(&world, "a");
    let ended = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (143, Some("Error")));
    assert!(status.ready && status.state.unwrap().running.is_some());
    assert_eq!(messages(&world, "Killing"), ["Container main failed liveness probe, will be restarted"]);
    let unhealthy = messages(&world, "Unhealthy");
    assert_eq!(unhealthy, vec!["Liveness probe failed: HTTP probe failed with statuscode: 503"; 3]);
    sleep(300 * SECOND).await;
    assert_eq!(world.restarts("a"), 1, "the new container begins anew");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_alive_and_never_restarts_ends_its_pod() {
    let world = World::start().await;
    world.network.fail("/alive");
    let probe = json!({"httpGet": get("/alive"), "failureThreshold": 1, "initialDelaySeconds": 3});
    world.create("a", probed("Never", &[("livenessProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    let started = Instant::now();
    world.until("Failed", |w| w.phase("a") == "Failed").await;
    assert!(started.elapsed() < 4 * SECOND, "took {:?}", started.elapsed());
    assert_eq!(messages(&world, "Killing"), ["Container main failed liveness probe"]);
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
    sleep(100 * SECOND).await;
    assert_eq!(world.network.asked("/alive"), 1, "nobody asks what has ended");
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_asked_before_the_container_has_started() {
    let world = World::start().await;
    world.network.fail("/started");
    world.network.fail("/alive");
    let probes = [
        ("startupProbe", json!({"httpGet": get("/started"), "failureThreshold": 30, "periodSeconds": 2})),
        ("livenessProbe", json!({"httpGet": get("/alive"), "periodSeconds": 1})),
        ("readinessProbe", json!({"httpGet": get("/ready"), "periodSeconds": 1})),
    ];
    world.create("a", probed("Always", &probes));
    world.until("Running", |w| w.phase("a") == "Running").await;
    sleep(25 * SECOND).await;
    assert_eq!(container(&world, "a").started, Some(false));
    assert_eq!((world.network.asked("/alive"), world.network.asked("/ready")), (0, 0));
    assert_eq!(world.restarts("a"), 0);

    world.network.succeed("/started");
    world.network.succeed("/alive");
    let asked = world.network.asked("/started");
    world.until("asked again", |w| w.network.asked("/started") > asked).await;
    let found = Instant::now();
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    assert!(found.elapsed() < Duration::from_millis(20), "took {:?}", found.elapsed());
    assert_eq!(container(&world, "a").started, Some(true));
    let asked = world.network.asked("/started");
    sleep(10 * SECOND).await;
    assert_eq!(world.network.asked("/started"), asked, "it has started for good");
    assert!(world.network.asked("/alive") >= 10 && world.network.asked("/ready") >= 10);
}

#[tokio::test(start_paused = true)]
async fn started_and_ready_are_told_together_where_nothing_else_is_asked() {
    let world = World::start().await;
    world.network.fail("/started");
    let probe = json!({"httpGet": get("/started"), "failureThreshold": 30});
    world.create("a", probed("Always", &[("startupProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    sleep(25 * SECOND).await;
    world.network.succeed("/started");
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    assert_eq!(readiness(&world, "a"), [(false, "False".into()), (true, "True".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_start_in_time_is_restarted() {
    let world = World::start().await;
    world.network.fail("/started");
    let probe = json!({"httpGet": get("/started"), "failureThreshold": 3, "periodSeconds": 5});
    world.create("a", probed("Always", &[("startupProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    let started = Instant::now();
    world.until("restarted", |w| w.fast.containers().iter().any(|c| c.attempt == 1)).await;
    // Three times five, to the millisecond of the start.
    assert!((14..=15).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(messages(&world, "Killing"), ["Container main failed startup probe, will be restarted"]);
    assert_eq!(messages(&world, "Unhealthy").len(), 3, "early tries are not told");
}

fn with_sidecar(probe: Value) -> Value {
    let mut spec = one("Always", "app");
    let image = json!({"image": "app", "imagePullPolicy": "IfNotPresent"});
    let mut sidecar = image.clone();
    sidecar["name"] = json!("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    for (kind, probe) in probe.as_object().unwrap() {
        sidecar[kind] = with_defaults(probe);
    }
    let mut next = image;
    next["name"] = json!("next");
    spec["initContainers"] = json!([sidecar, next]);
    spec
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_sidecar_waits_until_it_has_started() {
    let world = World::start().await;
    world.network.fail("/started");
    let probe = json!({"httpGet": get("/started"), "failureThreshold": 30});
    world.create("a", with_sidecar(json!({"startupProbe": probe})));
    world.until("the sidecar runs", |w| is_running(w, "sidecar")).await;
    sleep(200 * SECOND).await;
    assert!(!is_running(&world, "next"));
    assert_eq!(world.phase("a"), "Pending");

    world.network.succeed("/started");
    let asked = world.network.asked("/started");
    world.until("asked", |w| w.network.asked("/started") > asked).await;
    let found = Instant::now();
    world.until("the next runs", |w| is_running(w, "next")).await;
    assert!(found.elapsed() < Duration::from_millis(5), "took {:?}", found.elapsed());
    world.fast.exit("a", "next", 0);
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert_eq!(world.condition("a", "Initialized"), "True");
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_sidecar_without_a_probe_waits_for_nothing() {
    let world = World::start().await;
    let created = Instant::now();
    world.create("a", with_sidecar(json!({})));
    world.until("the next runs", |w| is_running(w, "next")).await;
    assert!(created.elapsed() < Duration::from_millis(20), "took {:?}", created.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_is_not_alive_is_restarted_alone() {
    let world = World::start().await;
    let probe = json!({"httpGet": get("/alive"), "failureThreshold": 1});
    let ready = json!({"httpGet": get("/ready")});
    world.create("a", with_sidecar(json!({"livenessProbe": probe, "readinessProbe": ready})));
    world.until("the next runs", |w| is_running(w, "next")).await;
    sleep(SECOND).await;
    world.fast.exit("a", "next", 0);
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    world.network.fail("/ready");
    world.until("a sidecar counts", |w| w.condition("a", "Ready") == "False").await;
    world.network.fail("/alive");
    let restarted =
        |w: &World, name: &str| w.fast.containers().iter().any(|c| c.name == name && c.attempt == 1);
    world.until("restarted", |w| restarted(w, "sidecar")).await;
    assert_eq!(messages(&world, "Killing"), ["Init container sidecar failed liveness probe"]);
    world.network.succeed("/alive");
    world.network.succeed("/ready");
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    assert!(!restarted(&world, "next") && !restarted(&world, "main"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_may_have_a_grace_period_of_its_own() {
    for (policy, extra, expected) in [
        ("Always", json!({"terminationGracePeriodSeconds": 5}), 5),
        ("Always", json!({}), 30),
        ("Never", json!({"terminationGracePeriodSeconds": 5}), 5),
    ] {
        let world = World::start().await;
        world.network.fail("/alive");
        world.fast.set_stubborn(true);
        let mut probe = json!({"httpGet": get("/alive"), "failureThreshold": 1, "initialDelaySeconds": 1});
        for (key, value) in extra.as_object().unwrap() {
            probe[key] = value.clone();
        }
        world.create("a", probed(policy, &[("livenessProbe", probe)]));
        world.until("killed", |w| w.api.reasons().contains(&"Killing".into())).await;
        let killed = Instant::now();
        world.until("dead", |w| w.fast.containers().iter().any(|c| c.state == ContainerState::Exited)).await;
        assert_eq!(killed.elapsed().as_secs(), expected, "{policy} {extra}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_agent_takes_no_pod_out_of_service() {
    let mut world = World::start().await;
    let probes = [
        ("startupProbe", json!({"httpGet": get("/started")})),
        ("readinessProbe", json!({"httpGet": get("/ready")})),
        ("livenessProbe", json!({"httpGet": get("/alive")})),
    ];
    world.create("a", probed("Always", &probes));
    world.network.fail("/not-ready");
    world.create("b", probed("Always", &[("readinessProbe", json!({"httpGet": get("/not-ready")}))]));
    world.until("Ready", |w| w.condition("a", "Ready") == "True" && w.phase("b") == "Running").await;
    sleep(20 * SECOND).await;
    let started = world.network.asked("/started");
    world.kill_agent();
    sleep(20 * SECOND).await;
    let patches = world.api.patches.lock().len();
    let (asked, at) = (world.network.asked("/ready"), Instant::now());
    world.start_agent();
    world.until("asked again", |w| w.network.asked("/ready") > asked).await;
    assert!(at.elapsed() < 10 * SECOND, "within a period");
    sleep(30 * SECOND).await;
    assert_eq!(world.api.patches.lock().len(), patches, "nothing has changed");
    assert_eq!(world.network.asked("/started"), started, "what has started stays so");

    world.network.succeed("/not-ready");
    world.until("the other becomes ready", |w| w.condition("b", "Ready") == "True").await;
    world.kill_agent();
    world.network.fail("/ready");
    world.start_agent();
    world.until("what went wrong meanwhile is found", |w| w.condition("a", "Ready") == "False").await;
    assert_eq!(world.restarts("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_had_started_has_started_for_the_next_agent() {
    let mut world = World::start().await;
    world.create("a", with_sidecar(json!({"startupProbe": {"httpGet": get("/started")}})));
    world.until("the next runs", |w| is_running(w, "next")).await;
    sleep(SECOND).await;
    world.kill_agent();
    world.network.fail("/started");
    world.start_agent();
    sleep(SECOND).await;
    world.fast.exit("a", "next", 0);
    world.until("Running", |w| w.phase("a") == "Running").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_asked_whether_it_is_ready_and_nothing_else() {
    let world = World::start().await;
    let probes = [
        ("readinessProbe", json!({"httpGet": get("/ready"), "periodSeconds": 1, "failureThreshold": 1})),
        ("livenessProbe", json!({"httpGet": get("/alive"), "periodSeconds": 1, "failureThreshold": 1})),
    ];
    world.create("a", probed("Always", &probes));
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    sleep(5 * SECOND).await;
    world.fast.set_stubborn(true);
    world.delete("a", 20);
    sleep(Duration::from_millis(100)).await;
    let (ready, alive) = (world.network.asked("/ready"), world.network.asked("/alive"));
    world.network.fail("/alive");
    world.network.fail("/ready");
    sleep(10 * SECOND).await;
    assert!(world.network.asked("/ready") >= ready + 9);
    assert_eq!(world.network.asked("/alive"), alive);
    assert_eq!(world.condition("a", "Ready"), "False");
    world.until("gone", |w| w.phase("a") == "gone").await;
    let asked = world.network.asked.lock().len();
    sleep(30 * SECOND).await;
    assert_eq!(world.network.asked.lock().len(), asked, "nobody asks what is gone");
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_forced_out_is_not_probed_any_more() {
    let world = World::start().await;
    world.create("a", probed("Always", &[("readinessProbe", json!({"httpGet": get("/ready")}))]));
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    world.force_delete("a");
    world.until("nothing is left", |w| w.fast.containers().is_empty()).await;
    let asked = world.network.asked("/ready");
    sleep(60 * SECOND).await;
    assert_eq!(world.network.asked("/ready"), asked);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_probe_is_made() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["containers"][0]["ports"] = json!([{"name": "admin", "containerPort": 9000}]);
    let container = |name: &str, probe: Value| {
        let mut container = spec["containers"][0].clone();
        container["name"] = json!(name);
        container["readinessProbe"] = with_defaults(&probe);
        container
    };
    let mut all = spec.clone();
    all["containers"] = json!([
        container("http", json!({"httpGet": {"path": "/x", "port": "admin"}})),
        container("tcp", json!({"tcpSocket": {"port": "admin"}})),
        container("grpc", json!({"grpc": {"port": 7000, "service": "s"}})),
        container("exec", json!({"exec": {"command": ["ask", "me"]}})),
    ]);
    world.create("a", all);
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    for asked in ["/x", "tcp 9000", "grpc 7000 s"] {
        assert_eq!(world.network.asked(asked), 1, "{asked}");
    }
    assert_eq!(world.fast.executed()[0].1, ["ask", "me"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_made_is_told_and_decides_nothing() {
    let world = World::start().await;
    let result = Err(Error::unimplemented("exec"));
    world.fast.set_exec("ask", FakeExec { delay: Duration::ZERO, result });
    let probe = json!({"exec": {"command": ["ask"]}, "failureThreshold": 1});
    world.create("a", probed("Always", &[("livenessProbe", probe.clone()), ("readinessProbe", probe)]));
    world.until("Running", |w| w.phase("a") == "Running").await;
    sleep(100 * SECOND).await;
    assert_eq!((world.restarts("a"), world.condition("a", "Ready").as_str()), (0, "False"));
    let told = messages(&world, "Unhealthy");
    for kind in ["Liveness", "Readiness"] {
        let expected = format!(
            "{kind} probe errored and resulted in unknown state: exec is not supported by this provider"
        );
        assert!(told.contains(&expected), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_is_told_and_good_enough() {
    let world = World::start().await;
    world.network.set("/ready", ProbeOutcome::Warning("look".into()));
    world.create("a", probed("Always", &[("readinessProbe", json!({"httpGet": get("/ready")}))]));
    world.until("Ready", |w| w.condition("a", "Ready") == "True").await;
    assert_eq!(messages(&world, "ProbeWarning"), ["Readiness probe warning: look"]);
}
