//! Init containers and sidecars (upstream: `computeInitContainerActions` in `kuberuntime_container.go`).

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::Container;

use super::{ComputeInput, ContainerToKill, PodActions, kill_unknown, reason_to_kill, resize};
use crate::kuberuntime::restart::{container_should_restart, restart_after_kill};
use crate::kuberuntime::runtime_pod::RuntimeContainer;
use crate::pod::{PodExt, is_restartable_init_container};
use crate::prober::{ProbeResult, ProbeResults};

/// Decides about init containers; returns whether the pod is initialised (`computeInitContainerActions`).
///
/// It goes from the last to the first, because finished ones may be gone from the runtime: the last one that is
/// there tells how far the pod has come.
pub(super) fn compute_init_container_actions(input: &ComputeInput<'_>, actions: &mut PodActions) -> bool {
    let ComputeInput { pod, runtime, probes, .. } = *input;
    let containers = pod.init_containers();
    if containers.is_empty() {
        return true;
    }
    let mut pod_has_initialized = runtime.has_any_active_regular_container_started(pod);
    let mut previously_initialized = pod_has_initialized;
    let last = containers.len() - 1;
    let mut to_start = Vec::new();

    for (i, container) in containers.iter().enumerate().rev() {
        let sidecar = is_restartable_init_container(container);
        let Some(status) = runtime.find_active(&container.name) else {
            if previously_initialized && sidecar {
                to_start.push(i);
            }
            continue;
        };
        if previously_initialized && !sidecar {
            continue;
        }
        let mut initialized = || {
            if i == last {
                pod_has_initialized = true;
            }
            i != last
        };
        match (status.state, sidecar) {
            // Made but not started: the runtime failed between the two.
            (ContainerState::Created, _) => to_start.push(i),
            (ContainerState::Running, false) => {
                if !resize::compute_pod_resize_action(input, container, status, actions) {
                    to_start.push(i);
                }
            }
            (ContainerState::Running, true) => {
                let has_started = sidecar_has_started(container, status, probes);
                if has_started && initialized() && !previously_initialized {
                    to_start.push(i + 1);
                }
                if let Some((reason, why)) = reason_to_kill(container, status, probes) {
                    let message = format!("Init container {} {why}", container.name);
                    actions.containers_to_kill.push(ContainerToKill {
                        container: status.clone(),
                        message,
                        reason,
                    });
                    to_start.push(i);
                } else if has_started && !resize::compute_pod_resize_action(input, container, status, actions)
                {
                    to_start.push(i);
                }
            }
            (ContainerState::Exited, true) => to_start.push(i),
            (ContainerState::Exited, false) if status.exit_code == 0 => {
                if initialized() {
                    to_start.push(i + 1);
                }
            }
            (ContainerState::Exited, false) => {
                if !container_should_restart(container, pod, status.exit_code) || pod.is_deleting() {
                    actions.kill_pod = true;
                    return false;
                }
                to_start.push(i);
            }
            (ContainerState::Unknown, _) => {
                if !sidecar && !restart_after_kill(container, pod) {
                    actions.kill_pod = true;
                    return false;
                }
                actions.containers_to_kill.push(kill_unknown("Init container", status));
                to_start.push(i);
            }
        }
        previously_initialized = true;
    }

    if !previously_initialized {
        to_start.push(0);
    }
    to_start.reverse();
    actions.init_containers_to_start = to_start;
    pod_has_initialized
}

/// Whether what comes after a running sidecar may start. Without a startup probe, running is enough.
fn sidecar_has_started(container: &Container, running: &RuntimeContainer, probes: &ProbeResults) -> bool {
    container.startup_probe.is_none()
        || probes.startup.get(&running.container_id()) == Some(ProbeResult::Success)
}
