//! Pods that go because the node runs out of something, or because they take too much of it.

use std::time::Duration;

use coracle_core::eviction::{EvictionConfig, Pressure, Signal, Threshold, ThresholdValue};
use coracle_core::machine::{FileSystem, NodeMemory, NodeUsage};
use coracle_core::quantity::Quantity;
use coracle_provider::Event;
use coracle_provider::fake::Call;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

const GIB: u64 = 1 << 30;

fn threshold(signal: Signal, text: &str) -> Threshold {
    let value = ThresholdValue::Quantity(Quantity::parse(text).unwrap());
    Threshold { signal, value, grace_period: Duration::ZERO, min_reclaim: None }
}

/// A world in which nothing is short, with these thresholds.
fn world(thresholds: Vec<Threshold>) -> World {
    let mut world = World::without_agent();
    let pressure_transition_period = Duration::from_secs(60);
    world.eviction = EvictionConfig { thresholds, pressure_transition_period, ..EvictionConfig::default() };
    let disk = FileSystem {
        device: 1,
        capacity_bytes: 100 * GIB,
        available_bytes: 50 * GIB,
        inodes: 1000,
        inodes_free: 500,
        ..FileSystem::default()
    };
    *world.node.usage.lock() = NodeUsage { root_fs: disk, max_pids: 1000, pids: 10, ..NodeUsage::default() };
    *world.node.images.lock() = disk;
    set_memory(&world, 8);
    world
}

/// So many GiB of ten are left.
fn set_memory(world: &World, left: u64) {
    let memory = NodeMemory {
        available_bytes: left * GIB,
        working_set_bytes: (10 - left) * GIB,
        ..NodeMemory::default()
    };
    world.node.usage.lock().memory = memory;
}

fn with_request(memory: &str) -> Value {
    let mut spec = one("Always", "app");
    spec["containers"][0]["resources"] = json!({"requests": {"memory": memory}});
    spec
}

async fn run(world: &World, uid: &str, class: &str, spec: Value) {
    let pod = json!({"metadata": {"uid": uid, "namespace": "ns", "name": uid, "generation": 1},
        "spec": spec, "status": {"phase": "Pending", "qosClass": class}});
    world.api.put(serde_json::from_value(pod).unwrap());
    world.until("running", |w| w.phase(uid) == "Running").await;
}

fn status(world: &World, uid: &str) -> PodStatus {
    world.api.get(uid).unwrap().status.clone().unwrap()
}

fn evictions(world: &World) -> usize {
    world.api.reasons().iter().filter(|reason| *reason == "Evicted").count()
}

#[tokio::test(start_paused = true)]
async fn the_pod_goes_that_uses_more_memory_than_it_asked_for() {
    let mut world = world(vec![threshold(Signal::MemoryAvailable, "1Gi")]);
    world.fast.set_memory_usage(2 * GIB);
    world.start_agent();
    run(&world, "modest", "Burstable", with_request("4Gi")).await;
    run(&world, "greedy", "Burstable", with_request("1Gi")).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(evictions(&world), 0);

    set_memory(&world, 0);
    let since = Instant::now();
    world.until("evicted", |w| w.phase("greedy") == "Failed").await;
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    set_memory(&world, 8);
    let found = status(&world, "greedy");
    let message = "The node was low on resource: memory. Threshold quantity: 1Gi, available: 0. Container main was using \
                   2Gi, request is 1Gi, has larger consumption of memory. ";
    assert_eq!((found.reason.as_deref(), found.message.as_deref()), (Some("Evicted"), Some(message)));
    let condition = found.conditions.unwrap().into_iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("TerminationByKubelet"));
    assert!(world.api.reasons().iter().any(|reason| reason == "EvictionThresholdMet"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((world.phase("modest").as_str(), evictions(&world)), ("Running", 1));
}

#[tokio::test(start_paused = true)]
async fn pods_go_one_after_the_other_and_critical_ones_never() {
    let mut world = world(vec![threshold(Signal::PidAvailable, "100")]);
    world.start_agent();
    for (uid, priority) in [("low", 0), ("high", 1000), ("critical", 2_000_000_000)] {
        let mut spec = one("Always", "app");
        spec["priority"] = json!(priority);
        run(&world, uid, "BestEffort", spec).await;
    }
    world.node.usage.lock().pids = 950;
    world.until("the first", |w| w.phase("low") == "Failed").await;
    assert_eq!(world.phase("high"), "Running");
    world.until("the second", |w| w.phase("high") == "Failed").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((world.phase("critical").as_str(), evictions(&world)), ("Running", 2));
}

#[tokio::test(start_paused = true)]
async fn the_node_says_so_and_takes_no_pods_that_asked_for_nothing() {
    let soft =
        Threshold { grace_period: Duration::from_secs(3600), ..threshold(Signal::MemoryAvailable, "2Gi") };
    let mut world = world(vec![soft]);
    world.start_agent();
    set_memory(&world, 1);
    let mut changed = world.kubelet().node_changed();
    changed.mark_unchanged();
    world.until("pressure", |w| w.kubelet().pressure().memory).await;
    assert!(changed.has_changed().unwrap(), "whoever writes the Node is told");

    world.create("none", one("Always", "app"));
    world.until("refused", |w| w.phase("none") == "Failed").await;
    let found = status(&world, "none");
    let message = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!((found.reason.as_deref(), found.message.as_deref()), (Some("Evicted"), Some(message)));
    run(&world, "some", "Burstable", with_request("1Gi")).await;

    set_memory(&world, 5);
    sleep(Duration::from_secs(30)).await;
    assert!(world.kubelet().pressure().memory, "it may come back");
    world.until("relieved", |w| w.kubelet().pressure() == Pressure::default()).await;
    run(&world, "later", "BestEffort", one("Always", "app")).await;
}

#[tokio::test(start_paused = true)]
async fn dead_containers_go_before_pods() {
    let mut world = world(vec![threshold(Signal::NodeFsAvailable, "10Gi")]);
    world.start_agent();
    run(&world, "a", "BestEffort", one("Always", "app")).await;
    world.create("b", one("Never", "other"));
    world.until("running", |w| w.phase("b") == "Running").await;
    world.fast.exit("b", "main", 0);
    world.until("ended", |w| w.phase("b") == "Succeeded").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.fast.containers().len(), 2);

    let node = world.node.clone();
    world.fast.observe(move |event| {
        if matches!(event, Event::ContainerRemoved { .. }) {
            node.usage.lock().root_fs.available_bytes = 50 * GIB;
        }
    });
    world.node.usage.lock().root_fs.available_bytes = 5 * GIB;
    world.until("removed", |w| w.fast.containers().len() == 1).await;
    sleep(Duration::from_secs(300)).await;
    assert!(world.api.reasons().iter().any(|reason| reason == "EvictionThresholdMet"));
    assert_eq!((world.phase("a").as_str(), evictions(&world)), ("Running", 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_of_the_node_takes_nothing_from_one_of_images() {
    let mut world = world(vec![threshold(Signal::NodeFsInodesFree, "100")]);
    world.node.images.lock().device = 2;
    world.start_agent();
    run(&world, "a", "BestEffort", one("Always", "app")).await;
    let listed = world.fast.calls(Call::ListImages);
    world.node.usage.lock().root_fs.inodes_free = 1;
    world.until("evicted", |w| w.phase("a") == "Failed").await;
    assert_eq!(world.fast.calls(Call::ListImages), listed);
    let message = status(&world, "a").message.unwrap();
    assert!(
        message.starts_with("The node was low on resource: inodes. Threshold quantity: 100, available: 1. "),
        "{message}"
    );
}
