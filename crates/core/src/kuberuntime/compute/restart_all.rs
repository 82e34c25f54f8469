//! Restarting all containers of a pod because one of them ended in a way that asks for it (upstream:
//! `getContainersToReset`).

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kuberuntime::restart::restarts_all_containers;
use crate::kuberuntime::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::pod::PodExt;

/// A container to remove.
#[derive(Clone, Debug)]
pub struct ContainerToReset {
    /// The instance.
    pub container: RuntimeContainer,
    /// It has to be killed first.
    pub kill: bool,
}

/// Every instance of every container: main ones before init ones, and those that are the reason after all others, so
/// that the reason is there until the end.
pub(super) fn containers_to_reset(pod: &Pod, runtime: &RuntimePod) -> Vec<ContainerToReset> {
    let (init_sources, init_targets) = sources_and_targets(pod.init_containers(), runtime);
    let (sources, targets) = sources_and_targets(pod.containers(), runtime);
    [targets, init_targets, sources, init_sources].concat()
}

fn sources_and_targets(
    containers: &[Container],
    runtime: &RuntimePod,
) -> (Vec<ContainerToReset>, Vec<ContainerToReset>) {
    let all = containers.iter().flat_map(|spec| {
        let instances = runtime.containers.iter().filter(|c| c.name == spec.name);
        instances.map(move |container| (spec, container))
    });
    let (sources, targets): (Vec<_>, Vec<_>) = all.partition(|(spec, container)| {
        container.state == ContainerState::Exited && restarts_all_containers(spec, container.exit_code)
    });
    let reset = |all: Vec<(&Container, &RuntimeContainer)>| {
        let reset = |container: &RuntimeContainer| ContainerToReset {
            container: container.clone(),
            kill: container.state != ContainerState::Exited,
        };
        all.into_iter().map(|(_, container)| reset(container)).collect()
    };
    (reset(sources), reset(targets))
}
