//! What pods were given of the node against what they have.

use std::sync::Arc;

use coracle_core::allocation::Amounts;
use coracle_core::pod::{PodExt, phase};
use coracle_provider::{ContainerState, ContainerStatus as Instance, Resources};
use k8s_openapi::api::core::v1::{Pod, PodCondition, ResourceRequirements};

use super::{Difference, newest, shown};
use crate::api::{NODE_CPU, RESIZED};
use crate::provider::CANNOT_RESIZE;
use crate::world::World;

/// Pods are never given more than there is.
pub(super) fn overbooked(world: &World, pods: &[Arc<Pod>]) -> Option<Difference> {
    // A pod that has a place keeps it when the agent ends in the middle of stopping it for another one.
    let counts =
        |pod: &&Arc<Pod>| !phase::is_terminal(pod.phase()) && !world.history.was_preempted(&pod.uid());
    let given: i64 = pods.iter().filter(counts).map(|pod| allocated_cpu(pod)).sum();
    (given > NODE_CPU)
        .then(|| (String::new(), format!("pods have {given} of {NODE_CPU} thousandths of a cpu")))
}

fn allocated_cpu(pod: &Pod) -> i64 {
    let of = |name: &str| {
        let requests = shown(pod, name)?.allocated_resources.clone();
        let requests = ResourceRequirements { requests, ..ResourceRequirements::default() };
        Some(Amounts::of_pod(Some(&requests)).cpu_request)
    };
    pod.containers().iter().filter_map(|c| of(&c.name)).sum()
}

/// Whatever was allocated is in effect; and that is what the spec says, unless the pod waits for it.
pub(super) fn of_pod(pod: &Pod, instances: &[(&'static str, Arc<Instance>)]) -> Vec<String> {
    let condition = |kind: &str| pod.pod_status().conditions.iter().flatten().find(|c| c.type_ == kind);
    let pending = condition("PodResizePending");
    let mut wrong = Vec::new();
    if let Some(in_progress) = condition("PodResizeInProgress") {
        // What was given to a container while it started, its runtime may not be able to change. That is told.
        if !in_progress.message.as_deref().is_some_and(|message| message.contains(CANNOT_RESIZE)) {
            wrong.push(format!("a resize goes on: {in_progress:?}"));
        }
        return wrong;
    }
    // What is infeasible is looked at again only when the pod asks for something else.
    let asked = pod.annotation(RESIZED).and_then(|generation| generation.parse().ok());
    let is_infeasible = |c: &PodCondition| c.reason.as_deref() == Some("Infeasible");
    let last = |c: &PodCondition| asked.filter(|_| is_infeasible(c)).or(pod.metadata.generation);
    let is_old = |c: &PodCondition| c.observed_generation < last(c);
    wrong.extend(pending.filter(|c| is_old(c)).map(|c| format!("an old resize waits: {c:?}")));
    let mut differs = false;
    for container in pod.containers() {
        let Some((_, instance)) = newest(instances, &container.name) else { continue };
        if instance.state != ContainerState::Running {
            continue;
        }
        let (wanted, has) = (Amounts::of_pod(container.resources.as_ref()), amounts(&instance.resources));
        differs |= wanted != has;
        if wanted != has && pending.is_none() {
            wrong.push(format!("{} has {has:?} and should have {wanted:?}", instance.id));
        }
        let shown = shown(pod, &container.name).and_then(|shown| shown.allocated_resources.clone());
        let given = ResourceRequirements { requests: shown, ..ResourceRequirements::default() };
        let given = Amounts::of_pod(Some(&given));
        if (given.cpu_request, given.memory_request) != (has.cpu_request, has.memory_request) {
            wrong.push(format!("{} has {has:?} and was given {given:?}", instance.id));
        }
    }
    let all_run = pod
        .containers()
        .iter()
        .all(|c| newest(instances, &c.name).is_some_and(|(_, c)| c.state == ContainerState::Running));
    if all_run && !differs {
        wrong.extend(pending.map(|c| format!("it waits for what it has: {c:?}")));
    }
    wrong
}

fn amounts(resources: &Resources) -> Amounts {
    let number = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).unwrap_or_default();
    Amounts {
        cpu_limit: number(resources.cpu_limit_millis),
        cpu_request: number(resources.cpu_request_millis),
        memory_limit: number(resources.memory_limit_bytes),
        memory_request: number(resources.memory_request_bytes),
    }
}
