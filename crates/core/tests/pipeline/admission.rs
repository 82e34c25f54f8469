//! Pods that a node refuses, and pods that go so that it need not.

use std::sync::Arc;
use std::time::Duration;

use coracle_core::metrics;
use coracle_provider::fake::Call;
use coracle_provider::{ContainerState, Error};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

const CRITICAL: i32 = 2_000_000_000;

/// A node with one processor and room for five pods.
fn node(labels: Value, taints: Value) -> Arc<Node> {
    let node = json!({"metadata": {"name": "node", "labels": labels}, "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "5"}}});
    Arc::new(serde_json::from_value(node).unwrap())
}

async fn world_of(node: Arc<Node>) -> World {
    let world = World::start().await;
    *world.api.node.lock() = Some(node);
    world
}

fn asks_for(cpu: &str) -> Value {
    let mut spec = one("Always", "app");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    spec
}

fn critical(cpu: &str) -> Value {
    let mut spec = asks_for(cpu);
    spec["priority"] = json!(CRITICAL);
    spec
}

fn why(world: &World, uid: &str) -> String {
    let status = world.api.get(uid).unwrap().status.clone().unwrap();
    format!("{}: {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default())
}

fn is_alive(world: &World, uid: &str) -> bool {
    world.fast.containers().iter().any(|c| c.pod.uid == uid && c.state == ContainerState::Running)
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_by_name() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.create("a", asks_for("600m"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.create("b", asks_for("600m"));
    world.until("refused", |w| w.phase("b") == "Failed").await;
    let message = "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000";
    assert_eq!(why(&world, "b"), format!("OutOfcpu: Pod was rejected: {message}"));
    let told = world.api.events.lock().iter().any(|e| e.reason == "OutOfcpu" && e.message == message);
    assert!(told, "{:?}", world.api.reasons());
    world.create("c", asks_for("400m"));
    world.until("a refused pod takes no room", |w| w.phase("c") == "Running").await;
    world.delete("a", 1);
    world.until("gone", |w| w.phase("a") == "gone").await;
    world.create("d", asks_for("600m"));
    world.until("there is room again", |w| w.phase("d") == "Running").await;
    sleep(Duration::from_secs(60)).await;
    assert!(!is_alive(&world, "b"), "refused once, refused for good");
}

#[tokio::test(start_paused = true)]
async fn a_label_that_came_a_moment_ago_counts() {
    let world = world_of(node(json!({}), json!([]))).await;
    let mut spec = one("Always", "app");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    world.create("a", spec.clone());
    world.until("refused", |w| w.phase("a") == "Failed").await;
    assert_eq!(
        why(&world, "a"),
        "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    );
    *world.api.fresh_node.lock() = Some(node(json!({"disk": "ssd"}), json!([])));
    world.create("b", spec);
    world.until("Running", |w| w.phase("b") == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_while_it_waits_never_starts() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.create("victim", asks_for("800m"));
    world.until("Running", |w| w.phase("victim") == "Running").await;
    world.fast.set_stubborn(true);
    world.create("critical", critical("800m"));
    world.until("told", |w| w.api.reasons().contains(&"Preempting".into())).await;
    world.create("late", asks_for("200m"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.phase("late"), "Pending");
    world.delete("critical", 30);
    world.until("gone", |w| w.phase("critical") == "gone").await;
    world.until("who waited for it waits no more", |w| w.phase("late") == "Running").await;
    assert!(is_alive(&world, "victim"), "nothing of it was waited for");
    world.until("the other goes all the same", |w| w.phase("victim") == "Failed").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanishes_while_it_waits_holds_up_nobody() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.create("victim", asks_for("800m"));
    world.until("Running", |w| w.phase("victim") == "Running").await;
    world.fast.set_stubborn(true);
    world.create("critical", critical("800m"));
    world.until("told", |w| w.api.reasons().contains(&"Preempting".into())).await;
    world.create("late", asks_for("200m"));
    sleep(Duration::from_secs(1)).await;
    world.force_delete("critical");
    let gone = Instant::now();
    world.until("Running", |w| w.phase("late") == "Running").await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_makes_room_and_starts_once_there_is_some() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.create("small", asks_for("200m"));
    world.create("large", asks_for("700m"));
    world.until("Running", |w| w.phase("small") == "Running" && w.phase("large") == "Running").await;
    world.fast.set_stubborn(true);
    let came = Instant::now();
    let preempted = || metrics::PREEMPTIONS.with_label_values(&["cpu"]).get();
    let preempted_before = preempted();
    world.create("critical", critical("600m"));
    sleep(Duration::from_secs(5)).await;
    // Whoever comes now would take the room.
    world.create("late", asks_for("100m"));
    world
        .until("Running", |w| {
            assert!(!is_alive(w, "large") || !is_alive(w, "critical"), "both at once");
            w.phase("critical") == "Running"
        })
        .await;
    assert_eq!(came.elapsed().as_secs(), 30, "the pod had its grace period");
    world.until("the late one has its turn", |w| w.phase("late") == "Running").await;
    assert_eq!(world.phase("small"), "Running", "it alone would not have been enough");

    world.until("told", |w| w.phase("large") == "Failed").await;
    assert!(preempted() > preempted_before);
    assert_eq!(why(&world, "large"), "Preempting: Preempted in order to admit critical pod");
    let pod = world.api.get("large").unwrap();
    let conditions = pod.status.as_ref().unwrap().conditions.clone().unwrap();
    let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").expect("DisruptionTarget");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    assert!(target.last_transition_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_stop_in_time_is_told_and_holds_up_no_critical_pod_for_ever() {
    let world = world_of(node(json!({}), json!([]))).await;
    let mut spec = asks_for("800m");
    spec["terminationGracePeriodSeconds"] = json!(2);
    world.create("victim", spec);
    world.until("Running", |w| w.phase("victim") == "Running").await;
    world.fast.set_delay(Call::StopContainer, Duration::from_secs(100));
    let came = Instant::now();
    world.create("critical", critical("800m"));
    world.until("Running", |w| w.phase("critical") == "Running").await;
    assert_eq!(came.elapsed().as_secs(), 10);
    assert!(world.api.reasons().contains(&"ExceededGracePeriod".into()));
}

#[tokio::test(start_paused = true)]
async fn one_critical_pod_does_not_move_another() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.create("first", critical("800m"));
    world.until("Running", |w| w.phase("first") == "Running").await;
    world.create("second", critical("800m"));
    world.until("refused", |w| w.phase("second") == "Failed").await;
    assert!(why(&world, "second").starts_with("UnexpectedAdmissionError: "), "{}", why(&world, "second"));
    assert!(is_alive(&world, "first"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_asks_nobody_again_who_has_a_place() {
    let mut world = world_of(node(json!({"disk": "ssd"}), json!([]))).await;
    let mut spec = asks_for("600m");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    world.create("a", spec.clone());
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.create("refused", asks_for("600m"));
    world.until("refused", |w| w.phase("refused") == "Failed").await;
    world.kill_agent();

    // Meanwhile the label went, a taint came, and so did a pod that was made before the one that runs.
    *world.api.node.lock() = Some(node(json!({}), json!([{"key": "k", "effect": "NoExecute"}])));
    let mut tolerant = asks_for("600m");
    tolerant["tolerations"] = json!([{"operator": "Exists"}]);
    world.create("0", tolerant);
    world.create("b", spec);
    world.start_agent();
    world.until("refused", |w| w.phase("0") == "Failed" && w.phase("b") == "Failed").await;
    assert!(why(&world, "0").starts_with("OutOfcpu: "), "{}", why(&world, "0"));
    assert_eq!(world.phase("a"), "Running");
    assert!(why(&world, "refused").starts_with("OutOfcpu: "), "{}", why(&world, "refused"));
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_could_tell_nobody_whom_it_refused_has_let_nobody_in() {
    let mut world = world_of(node(json!({}), json!([]))).await;
    world.kill_agent();
    let mut spec = one("Always", "app");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    world.create("a", spec);
    // A terminal phase waits until it is certain that nothing runs; the rest is told before.
    let mut held_back = (*world.api.get("a").unwrap()).clone();
    held_back.status =
        serde_json::from_value(json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"})).unwrap();
    world.api.put(held_back);
    world.start_agent();
    world.until("refused", |w| w.phase("a") == "Failed").await;
    assert_eq!(world.fast.calls(Call::RunSandbox), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_no_provider() {
    let world = world_of(node(json!({}), json!([]))).await;
    world.fast.set_error(Call::List, Some(Error::internal("down")));
    sleep(Duration::from_secs(300)).await;
    let mut spec = one("Always", "app");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    world.create("a", spec);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.phase("a"), "Failed");
}
