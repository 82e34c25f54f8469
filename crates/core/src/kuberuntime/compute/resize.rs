//! Resources that are not what the runtime was told last (upstream: `computePodResizeAction`).

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{ComputeInput, ContainerToKill, KillReason, PodActions};
use crate::allocation::{Amounts, PodResourceInfo, restarts_for};
use crate::kuberuntime::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::pod::{PodExt, is_restartable_init_container};

/// A running container that gets other resources.
#[derive(Clone, Debug)]
pub struct ContainerToUpdate {
    /// The instance.
    pub container: RuntimeContainer,
    /// What it is to have.
    pub desired: Amounts,
    /// What it has.
    pub current: Amounts,
}

/// Decides what a resize does to a running container. Says whether it goes on; if not, it has been added to those to
/// kill, and is to be started.
pub(super) fn compute_pod_resize_action(
    input: &ComputeInput<'_>,
    container: &Container,
    running: &RuntimeContainer,
    actions: &mut PodActions,
) -> bool {
    let desired = desired(input.pod, container);
    // Without a record of what it was told: telling it again does no harm.
    let current = actuated(input.actuated, &container.name);
    let limit_or = |limit: (i64, i64), request: (i64, i64)| if limit.0 == limit.1 { request } else { limit };
    let memory = limit_or(
        (current.memory_limit, desired.memory_limit),
        (current.memory_request, desired.memory_request),
    );
    let cpu = limit_or((current.cpu_limit, desired.cpu_limit), (current.cpu_request, desired.cpu_request));
    let changes = [(memory, "memory"), (cpu, "cpu")];
    if changes.iter().any(|((from, to), resource)| from != to && restarts_for(container, resource)) {
        actions.containers_to_kill.push(ContainerToKill {
            container: running.clone(),
            message: format!("Container {} resize requires restart", container.name),
            reason: KillReason::Resize,
        });
        return false;
    }
    let update = ContainerToUpdate { container: running.clone(), desired, current };
    for ((from, to), list) in [(memory, &mut actions.memory_to_update), (cpu, &mut actions.cpu_to_update)] {
        // What is given back comes before what is taken.
        match from.cmp(&to) {
            std::cmp::Ordering::Less => list.push(update.clone()),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => list.insert(0, update.clone()),
        }
    }
    true
}

/// Whether the pod as a whole is to have other resources (`computePodLevelResourcesResizeAction`).
pub(super) fn pod_level_resources_changed(pod: &Pod, actuated: &PodResourceInfo) -> bool {
    Amounts::of_pod(pod.pod_spec().resources.as_ref()) != Amounts::of_pod(actuated.pod_level.as_ref())
}

/// Whether anything that runs has not got what was allocated to it. What does not run gets it when it starts
/// (`IsPodResizeInProgress`).
pub fn is_pod_resize_in_progress(pod: &Pod, runtime: &RuntimePod, actuated: &PodResourceInfo) -> bool {
    let sidecars = pod.init_containers().iter().filter(|c| is_restartable_init_container(c));
    let lags = |container: &Container| {
        let is_running = runtime.find(&container.name).is_some_and(|c| c.state == ContainerState::Running);
        let told = actuated.containers.get(&container.name);
        is_running && desired(pod, container) != Amounts::of_container(None, told)
    };
    let pod_level = pod.pod_spec().resources.is_some()
        && actuated.pod_level.is_some()
        && pod_level_resources_changed(pod, actuated);
    pod_level || sidecars.chain(pod.containers()).any(lags)
}

fn desired(pod: &Pod, container: &Container) -> Amounts {
    Amounts::of_container(pod.pod_spec().resources.as_ref(), container.resources.as_ref())
}

fn actuated(actuated: &PodResourceInfo, name: &str) -> Amounts {
    Amounts::of_container(actuated.pod_level.as_ref(), actuated.containers.get(name))
}
