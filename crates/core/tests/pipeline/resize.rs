//! Pods whose resources change while they run.

use std::time::Duration;

use coracle_provider::fake::Call;
use coracle_provider::{ContainerState, Error, LiveResize};
use k8s_openapi::api::core::v1::{Node, PodCondition, ResourceRequirements};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{World, one};

const ALL: LiveResize = LiveResize { cpu: true, memory: true };

fn resources(cpu: &str, memory: &str) -> Value {
    let list = json!({"cpu": cpu, "memory": memory});
    json!({"requests": list, "limits": list})
}

fn spec(cpu: &str, memory: &str, policy: &str) -> Value {
    let mut spec = one("Always", "app");
    spec["containers"][0]["resources"] = resources(cpu, memory);
    spec["containers"][0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    spec
}

async fn running(world: &World, uid: &str, spec: Value) {
    world.create(uid, spec);
    world.until("Running", |w| w.phase(uid) == "Running").await;
}

fn resize(world: &World, uid: &str, cpu: &str, memory: &str) {
    world.update(uid, |spec| {
        spec.containers[0].resources = Some(serde_json::from_value(resources(cpu, memory)).unwrap());
    });
}

fn condition(world: &World, uid: &str, kind: &str) -> Option<PodCondition> {
    let pod = world.api.get(uid)?;
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind).cloned()
}

fn pending(world: &World, uid: &str) -> Option<String> {
    condition(world, uid, "PodResizePending").map(|c| c.reason.unwrap_or_default())
}

/// CPU and memory that the API shows as the limits in force.
fn limits(world: &World, uid: &str) -> [String; 2] {
    let pod = world.api.get(uid).unwrap();
    let status = pod.status.clone().unwrap().container_statuses.unwrap().remove(0);
    let shown: ResourceRequirements = status.resources.unwrap();
    ["cpu", "memory"].map(|name| shown.limits.as_ref().unwrap()[name].0.clone())
}

fn allocated_cpu(world: &World, uid: &str) -> String {
    let pod = world.api.get(uid).unwrap();
    let status = pod.status.clone().unwrap().container_statuses.unwrap().remove(0);
    status.allocated_resources.unwrap()["cpu"].0.clone()
}

fn has_event(world: &World, reason: &str) -> bool {
    world.api.reasons().iter().any(|r| *r == reason)
}

#[tokio::test(start_paused = true)]
async fn a_running_container_gets_other_resources() {
    let world = World::start().await;
    world.fast.set_live_resize(ALL);
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    assert_eq!(limits(&world, "a"), ["1", "1Gi"]);
    resize(&world, "a", "1500m", "2Gi");
    world.until("resized", |w| limits(w, "a") == ["1500m", "2Gi"]).await;
    assert_eq!(allocated_cpu(&world, "a"), "1500m");
    world.until("told", |w| has_event(w, "ResizeCompleted")).await;
    world.until("over", |w| condition(w, "a", "PodResizeInProgress").is_none()).await;
    assert!(has_event(&world, "ResizeStarted"));
    assert_eq!((world.restarts("a"), world.fast.calls(Call::StartContainer)), (0, 1));
    assert_eq!(world.fast.calls(Call::UpdateContainerResources), 2, "memory, then processors");
    assert_eq!(world.fast.containers()[0].resources.memory_limit_bytes, Some(2 << 30));
    let pod = world.api.get("a").unwrap();
    let status = pod.status.as_ref().unwrap();
    assert_eq!(status.allocated_resources.as_ref().unwrap()["cpu"].0, "1500m");
    assert_eq!(status.resources.as_ref().unwrap().limits.as_ref().unwrap()["memory"].0, "2Gi");
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_cannot_do_is_infeasible_and_said_so() {
    let world = World::start().await;
    world.fast.set_live_resize(LiveResize { cpu: false, memory: true });
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    resize(&world, "a", "2", "1Gi");
    world.until("infeasible", |w| pending(w, "a").as_deref() == Some("Infeasible")).await;
    let told = condition(&world, "a", "PodResizePending").unwrap();
    assert!(
        told.message.unwrap().starts_with("Resize of cpu is infeasible for container main: the fast runtime")
    );
    assert_eq!(told.observed_generation, Some(2));
    assert_eq!(
        (limits(&world, "a"), allocated_cpu(&world, "a")),
        (["1", "1Gi"].map(str::to_owned), "1".to_owned())
    );
    assert!(has_event(&world, "ResizeInfeasible"));
    resize(&world, "a", "1", "1Gi");
    world.until("taken back", |w| pending(w, "a").is_none()).await;
    assert_eq!(world.fast.calls(Call::UpdateContainerResources), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_says_so_is_restarted_for_it() {
    let world = World::start().await;
    running(&world, "a", spec("1", "1Gi", "RestartContainer")).await;
    resize(&world, "a", "2", "2Gi");
    world.until("restarted", |w| w.restarts("a") == 1 && limits(w, "a") == ["2", "2Gi"]).await;
    world.until("over", |w| condition(w, "a", "PodResizeInProgress").is_none()).await;
    assert_eq!(world.fast.calls(Call::UpdateContainerResources), 0);
    let new = world.fast.containers().into_iter().find(|c| c.state == ContainerState::Running).unwrap();
    assert_eq!(new.resources.cpu_limit_millis, Some(2000));
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_for_room_and_gets_it_when_another_pod_ends() {
    let world = World::start().await;
    world.fast.set_live_resize(ALL);
    let node = json!({"status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10"}}});
    *world.api.node.lock() = Some(std::sync::Arc::new(serde_json::from_value::<Node>(node).unwrap()));
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    running(&world, "b", spec("1", "1Gi", "NotRequired")).await;
    resize(&world, "a", "2", "1Gi");
    world.until("deferred", |w| pending(w, "a").as_deref() == Some("Deferred")).await;
    let told = condition(&world, "a", "PodResizePending").unwrap().message.unwrap();
    let expected = "Node didn't have enough resource: cpu, requested: 2000, used: 1000, capacity: 2000";
    assert_eq!(told, expected);
    sleep(Duration::from_secs(400)).await;
    assert_eq!(limits(&world, "a")[0], "1");
    world.delete("b", 1);
    world.until("resized", |w| limits(w, "a")[0] == "2").await;
    world.until("told", |w| pending(w, "a").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_refuses_is_told_of_and_asked_again() {
    let world = World::start().await;
    world.fast.set_live_resize(ALL);
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    world.fast.set_error(Call::UpdateContainerResources, Some(Error::internal("no")));
    resize(&world, "a", "2", "1Gi");
    let failed = |w: &World| condition(w, "a", "PodResizeInProgress").and_then(|c| c.reason);
    world.until("told", |w| failed(w).as_deref() == Some("Error")).await;
    let told = condition(&world, "a", "PodResizeInProgress").unwrap();
    assert_eq!((told.message.as_deref(), told.observed_generation), (Some("no"), Some(2)));
    assert!(has_event(&world, "ResizeError"));
    assert_eq!((limits(&world, "a")[0].as_str(), allocated_cpu(&world, "a").as_str()), ("1", "2"));
    world.fast.set_error(Call::UpdateContainerResources, None);
    world.until("resized", |w| limits(w, "a")[0] == "2").await;
    world.until("over", |w| failed(w).is_none() && has_event(w, "ResizeCompleted")).await;
}

#[tokio::test(start_paused = true)]
async fn memory_in_use_is_not_taken_away() {
    let world = World::start().await;
    world.fast.set_live_resize(ALL);
    world.fast.set_memory_usage(600 << 20);
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    resize(&world, "a", "1", "512Mi");
    let told = |w: &World| condition(w, "a", "PodResizeInProgress").and_then(|c| c.message);
    let expected = "cannot decrease memory limits: attempting to set container \"main\" memory limit (536870912) below \
                    current usage (629145600)";
    world.until("told", |w| told(w).as_deref() == Some(expected)).await;
    assert_eq!(world.fast.calls(Call::UpdateContainerResources), 0);
    world.fast.set_memory_usage(100 << 20);
    world.until("resized", |w| limits(w, "a")[1] == "512Mi").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_allocated_outlives_the_agent() {
    let mut world = World::start().await;
    running(&world, "a", spec("1", "1Gi", "NotRequired")).await;
    resize(&world, "a", "2", "1Gi");
    world.until("infeasible", |w| pending(w, "a").as_deref() == Some("Infeasible")).await;
    world.kill_agent();
    world.start_agent();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(allocated_cpu(&world, "a"), "1");
    assert_eq!(pending(&world, "a").as_deref(), Some("Infeasible"));
    assert_eq!((world.restarts("a"), world.fast.calls(Call::StartContainer)), (0, 1));
    world.fast.set_live_resize(ALL);
    resize(&world, "a", "3", "1Gi");
    world.until("resized", |w| limits(w, "a")[0] == "3" && pending(w, "a").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_the_pod_hold_for_containers_without_their_own() {
    let world = World::start().await;
    world.fast.set_live_resize(ALL);
    let mut spec = one("Always", "app");
    spec["resources"] = resources("1", "1Gi");
    running(&world, "a", spec).await;
    assert_eq!(world.fast.containers()[0].resources.memory_limit_bytes, Some(1 << 30));
    world.update("a", |spec| spec.resources = Some(serde_json::from_value(resources("2", "3Gi")).unwrap()));
    world.until("resized", |w| w.fast.containers()[0].resources.memory_limit_bytes == Some(3 << 30)).await;
    let shown = |w: &World| {
        let pod = w.api.get("a").unwrap();
        pod.status
            .as_ref()
            .unwrap()
            .resources
            .as_ref()
            .and_then(|r| Some(r.limits.as_ref()?["memory"].0.clone()))
    };
    world.until("shown", |w| shown(w).as_deref() == Some("3Gi")).await;
    world.until("over", |w| has_event(w, "ResizeCompleted")).await;
}
