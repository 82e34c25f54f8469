//! From what a runtime has of a container to what the API shows (upstream: `convertToAPIContainerStatuses`).

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod, VolumeMountStatus,
};

use coracle_provider::ContainerState;

use super::resources::status_resources;
use crate::allocation::PodResourceInfo;
use crate::clock::api_time;
use crate::kuberuntime::{RuntimeContainer, RuntimePod, should_container_be_restarted};
use crate::pod::{PodExt, container_status, is_restartable_init_container};
use crate::prober::{ProbeResult, ProbeResults};
use crate::reason_cache::ReasonCache;

/// A container that vanished without a trace (`ContainerReasonStatusUnknown`).
pub(super) const CONTAINER_STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
/// A container that was removed, or lost, while all containers of its pod start anew (`RestartingAllContainers`).
pub(super) const RESTARTING_ALL_CONTAINERS: &str = "RestartingAllContainers";
/// Exit code of a container of whose end nothing is known.
pub(super) const EXIT_CODE_UNKNOWN: i32 = 137;

/// Which of the pod's lists is being made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Init,
    Main,
    Ephemeral,
}

/// What container statuses are made from, beside the containers and what they were before.
pub(super) struct Conversion<'a> {
    pub(super) pod: &'a Pod,
    pub(super) runtime: &'a RuntimePod,
    pub(super) reasons: &'a ReasonCache,
    /// What the runtimes were told last.
    pub(super) actuated: &'a PodResourceInfo,
    /// All containers are to start anew.
    pub(super) restarting: bool,
}

impl Conversion<'_> {
    /// Makes one of the lists, in the order of the spec.
    pub(super) fn container_statuses(
        &self,
        previous: &[ContainerStatus],
        containers: &[Container],
        kind: ContainerKind,
    ) -> Vec<ContainerStatus> {
        let mut statuses: Vec<ContainerStatus> = containers
            .iter()
            .map(|container| {
                let old = container_status(previous, &container.name);
                match last_two(self.runtime, &container.name) {
                    (None, _) => self.without_instance(container, old),
                    (Some(newest), before) => self.with_instance(container, newest, before, old),
                }
            })
            .collect();
        for (container, status) in containers.iter().zip(&mut statuses) {
            if kind == ContainerKind::Init
                && init_container_is_done(self.pod, container, self.runtime, status)
            {
                continue;
            }
            // Nobody starts an ephemeral container again: once it has ended, that is what it did, whatever its start said.
            let has_ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
            if kind == ContainerKind::Ephemeral && has_ended {
                continue;
            }
            show_start_failure(self.pod, container, self.runtime, self.reasons, status);
        }
        statuses
    }

    /// No runtime has this container: it has not started yet, or its record is lost.
    fn without_instance(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        let has_init = !self.pod.init_containers().is_empty();
        let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting(reason, None)),
            volume_mounts: volume_mount_statuses(container),
            ..ContainerStatus::default()
        };
        let Some(old) = old else { return status };
        let old_state = old.state.as_ref();
        if self.restarting && old_state.is_none_or(|s| s.waiting.is_none()) {
            return removed_to_restart(status, old);
        }
        if old_state.is_some_and(|s| s.terminated.is_some()) {
            return old.clone();
        }
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
        let was_terminated_before = old.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        if old_state.is_some_and(|s| s.running.is_some()) && !was_terminated_before {
            // It ran: without a record of its end the pod would fall back to Pending.
            let message = "The container could not be located when the pod was deleted.  The container used to be Running";
            status.last_state = Some(terminated_unknown(message));
            if !self.pod.is_deleting() {
                status.restart_count += 1;
            }
        }
        status
    }

    fn with_instance(
        &self,
        container: &Container,
        newest: &RuntimeContainer,
        before: Option<&RuntimeContainer>,
        old: Option<&ContainerStatus>,
    ) -> ContainerStatus {
        let told = self.actuated.containers.get(&container.name);
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: newest.image.image.clone(),
            image_id: newest.image_id.clone(),
            container_id: Some(newest.container_id()),
            restart_count: i32::try_from(newest.restart_count()).unwrap_or(i32::MAX),
            state: Some(api_state(newest, old, self.restarting)),
            volume_mounts: volume_mount_statuses(container),
            resources: Some(status_resources(container, newest, told, old)),
            allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
            ..ContainerStatus::default()
        };
        if let Some(old) = old {
            let old_terminated = old.state.as_ref().filter(|s| s.terminated.is_some());
            let runs_again = newest.state == ContainerState::Running && old_terminated.is_some();
            status.restart_count = match old.restart_count {
                count if runs_again && count >= status.restart_count => count.saturating_add(1),
                count => status.restart_count.max(count),
            };
            let is_other_instance = old.container_id != status.container_id;
            status.last_state = match old_terminated {
                Some(state) if is_other_instance => Some(state.clone()),
                _ => old.last_state.clone().filter(|s| s.terminated.is_some()),
            };
        }
        if let Some(before) = before {
            status.last_state = Some(api_state(before, None, false));
        }
        status
    }
}

/// The newest instance and the one before it.
fn last_two<'a>(
    runtime: &'a RuntimePod,
    name: &str,
) -> (Option<&'a RuntimeContainer>, Option<&'a RuntimeContainer>) {
    let mut instances = runtime.containers.iter().filter(|c| c.name == name);
    (instances.next(), instances.next())
}

/// A container that was removed so that all containers of its pod start anew.
fn removed_to_restart(status: ContainerStatus, old: &ContainerStatus) -> ContainerStatus {
    let message = "The container is removed because RestartAllContainers in place";
    let ended = ContainerStateTerminated {
        exit_code: EXIT_CODE_UNKNOWN,
        reason: Some(RESTARTING_ALL_CONTAINERS.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerStatus {
        state: Some(waiting(RESTARTING_ALL_CONTAINERS, Some(message.to_owned()))),
        last_state: Some(ApiState { terminated: Some(ended), ..ApiState::default() }),
        restart_count: old.restart_count.saturating_add(1),
        ..status
    }
}

fn api_state(container: &RuntimeContainer, old: Option<&ContainerStatus>, restarting: bool) -> ApiState {
    let was_running = old.and_then(|o| o.state.as_ref()).is_some_and(|s| s.running.is_some());
    match container.state {
        ContainerState::Running => ApiState {
            running: Some(ContainerStateRunning { started_at: container.started_at.map(api_time) }),
            ..ApiState::default()
        },
        ContainerState::Exited => ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: container.exit_code,
                reason: non_empty(&container.reason),
                message: non_empty(&container.message),
                started_at: container.started_at.map(api_time),
                finished_at: container.finished_at.map(api_time),
                container_id: Some(container.container_id()),
                signal: None,
            }),
            ..ApiState::default()
        },
        ContainerState::Unknown if was_running => {
            let mut state =
                terminated_unknown("The container could not be located when the pod was terminated");
            if let Some(terminated) = state.terminated.as_mut().filter(|_| restarting) {
                terminated.reason = Some(RESTARTING_ALL_CONTAINERS.to_owned());
            }
            state
        }
        ContainerState::Created | ContainerState::Unknown => {
            ApiState { waiting: Some(ContainerStateWaiting::default()), ..ApiState::default() }
        }
    }
}

/// Whether an init container needs no waiting state any more; one whose record is lost although the pod went on is
/// taken as done.
fn init_container_is_done(
    pod: &Pod,
    container: &Container,
    runtime: &RuntimePod,
    status: &mut ContainerStatus,
) -> bool {
    match runtime.find(&container.name) {
        Some(found) => found.state == ContainerState::Exited && found.exit_code == 0,
        None => {
            let lost = runtime.has_any_regular_container_created(pod)
                && !is_restartable_init_container(container)
                && status.state.as_ref().is_some_and(|s| s.waiting.is_some());
            if lost {
                let message = "Unable to get init container status from container runtime and pod has been \
                               initialized, treat it as exited normally";
                status.state = Some(ApiState {
                    terminated: Some(ContainerStateTerminated {
                        reason: Some("Completed".to_owned()),
                        message: Some(message.to_owned()),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ApiState::default()
                });
            }
            lost
        }
    }
}

/// A container that could not be started waits, and says why.
fn show_start_failure(
    pod: &Pod,
    container: &Container,
    runtime: &RuntimePod,
    reasons: &ReasonCache,
    status: &mut ContainerStatus,
) {
    if !should_container_be_restarted(container, pod, runtime) {
        return;
    }
    let Some(failure) = reasons.get(&pod.uid(), &container.name) else { return };
    if let Some(state) = status.state.take_if(|s| s.terminated.is_some()) {
        status.last_state = Some(state);
    }
    status.state = Some(waiting(failure.reason, Some(failure.message)));
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

/// The end of a container of which nothing is known.
pub(super) fn terminated_unknown(message: &str) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: EXIT_CODE_UNKNOWN,
            reason: Some(CONTAINER_STATUS_UNKNOWN.to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    }
}

/// Mounts as the status repeats them; read-only ones are not so recursively.
fn volume_mount_statuses(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whether containers have started and are ready (`prober.UpdatePodStatus`). `statuses` are those of `containers`, one by
/// one.
///
/// A probe that has not come to anything yet leaves a container that the API knows as it was: a restart of the agent
/// takes no pod out of service.
pub(super) fn set_started_and_ready(
    containers: &[Container],
    statuses: &mut [ContainerStatus],
    previous: &[ContainerStatus],
    kind: ContainerKind,
    probes: &ProbeResults,
) {
    for (container, status) in containers.iter().zip(statuses) {
        let same_instance = |old: &&ContainerStatus| old.container_id == status.container_id;
        let old = container_status(previous, &container.name).filter(same_instance);
        let id = status.container_id.as_deref().unwrap_or_default();
        let state = status.state.as_ref();

        let started = state.is_some_and(|s| s.running.is_some())
            && match (container.startup_probe.is_some(), probes.startup.get(id)) {
                (false, _) => true,
                (true, Some(result)) => result == ProbeResult::Success,
                (true, None) => old.is_some_and(|o| o.started == Some(true)),
            };
        let runs_once = kind == ContainerKind::Init && !is_restartable_init_container(container);
        let ready = if runs_once {
            state.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
        } else {
            let ready = match (container.readiness_probe.is_some(), probes.readiness.get(id)) {
                (false, _) => true,
                (true, Some(result)) => result == ProbeResult::Success,
                (true, None) => old.is_some_and(|o| o.ready),
            };
            started && ready && kind != ContainerKind::Ephemeral
        };
        status.started = Some(started);
        status.ready = ready;
    }
}

#[cfg(test)]
mod tests;
