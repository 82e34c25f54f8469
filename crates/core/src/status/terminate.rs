//! The last status of a pod (upstream: `TerminatePod`).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::container_statuses::terminated_unknown;
use crate::pod::{PodExt, is_restartable_init_container, phase};

const LOST: &str = "The container could not be located when the pod was terminated";

/// Gives every container that may have run an end, and the pod a terminal phase: nothing of it runs any more, and
/// whatever is not known to have succeeded has failed.
pub(super) fn terminated_status(pod: &Pod, mut status: PodStatus) -> PodStatus {
    if has_pod_initialized(pod, &status) {
        end_all(status.container_statuses.iter_mut().flatten());
    }
    let started = started_init_containers(status.init_container_statuses.as_deref().unwrap_or_default());
    end_all(status.init_container_statuses.iter_mut().flatten().take(started));
    if !pod.is_static() && !phase::is_terminal(status.phase.as_deref().unwrap_or_default()) {
        status.phase = Some(phase::FAILED.to_owned());
    }
    status
}

fn end_all<'a>(statuses: impl Iterator<Item = &'a mut ContainerStatus>) {
    for status in statuses.filter(|s| s.state.as_ref().is_none_or(|state| state.terminated.is_none())) {
        status.state = Some(terminated_unknown(LOST));
        status.ready = false;
        status.started = Some(false);
    }
}

fn was_terminated(status: &ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.waiting.is_some())
}

/// Whether main containers may have run (`hasPodInitialized`).
fn has_pod_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let Some(last) = pod.init_containers().last() else { return true };
    if status.container_statuses.iter().flatten().any(|s| was_terminated(s) || !is_waiting(s)) {
        return true;
    }
    let Some(last_status) = status.init_container_statuses.iter().flatten().last() else { return false };
    if is_restartable_init_container(last) {
        let running = last_status.state.as_ref().is_some_and(|s| s.running.is_some());
        return running && last_status.started == Some(true);
    }
    let states = [&last_status.state, &last_status.last_state];
    states.into_iter().flatten().filter_map(|s| s.terminated.as_ref()).any(|t| t.exit_code == 0)
}

/// All but the final ones without a trace of a start, and at least one (`initializedContainers`).
fn started_init_containers(statuses: &[ContainerStatus]) -> usize {
    let last = statuses.iter().rposition(|s| !is_waiting(s) || was_terminated(s));
    last.map_or(usize::from(!statuses.is_empty()), |i| i + 1)
}
