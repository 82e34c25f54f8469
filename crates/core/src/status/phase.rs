//! The phase of a pod (upstream: `getPhase`).

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use super::container_statuses::RESTARTING_ALL_CONTAINERS;
use crate::kuberuntime::container_should_restart;
use crate::pod::{PodExt, container_status, is_restartable_init_container, phase};

#[derive(Default)]
struct Counts {
    pending_init: usize,
    failed_init: usize,
    pending_sidecars: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

/// The phase that follows from the containers. `is_terminal` says that nothing of the pod will run again, and
/// `has_initialized` that a main container was made in the present sandbox.
pub(super) fn get_phase(
    pod: &Pod,
    statuses: &[ContainerStatus],
    is_terminal: bool,
    has_initialized: bool,
) -> &'static str {
    let mut counts = Counts::default();
    for container in pod.init_containers() {
        let status = container_status(statuses, &container.name);
        if is_restartable_init_container(container) {
            counts.add_sidecar(status);
        } else {
            counts.add_init(container, pod, status);
        }
    }
    for container in pod.containers() {
        counts.add_main(container, pod, container_status(statuses, &container.name));
    }
    counts.phase(pod, is_terminal, has_initialized)
}

impl Counts {
    fn phase(&self, pod: &Pod, is_terminal: bool, has_initialized: bool) -> &'static str {
        if self.failed_init > 0 {
            return phase::FAILED;
        }
        let initializing = self.pending_init > 0 || (self.pending_sidecars > 0 && !has_initialized);
        if initializing || self.waiting > 0 {
            return phase::PENDING;
        }
        if self.running > 0 && self.unknown == 0 {
            return phase::RUNNING;
        }
        if self.running == 0 && self.stopped > 0 && self.unknown == 0 {
            let ended = if self.stopped == self.succeeded { phase::SUCCEEDED } else { phase::FAILED };
            let nothing_restarts = self.stopped == self.stopped_for_good;
            // A static pod never gets a terminal phase by being stopped: its manifest may come back.
            let stopped_for_good = nothing_restarts || (is_terminal && !pod.is_static());
            return if stopped_for_good { ended } else { phase::RUNNING };
        }
        phase::PENDING
    }

    fn add_init(&mut self, container: &Container, pod: &Pod, status: Option<&ContainerStatus>) {
        let state = status.and_then(|s| s.state.as_ref());
        let ended = match state {
            Some(s) if s.running.is_some() => None,
            Some(s) if s.terminated.is_some() => s.terminated.as_ref(),
            Some(s) if s.waiting.is_some() => last_end(status),
            _ => None,
        };
        match ended {
            None => self.pending_init += 1,
            Some(end) if end.exit_code != 0 && !restarts(container, pod, end) => {
                self.failed_init += 1;
            }
            Some(_) => {}
        }
    }

    fn add_sidecar(&mut self, status: Option<&ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        let Some(state) = &status.state else {
            self.pending_sidecars += 1;
            self.unknown += 1;
            return;
        };
        if state.running.is_some() {
            self.running += 1;
            self.pending_sidecars += usize::from(status.started != Some(true));
        } else if state.waiting.is_some() && last_end(Some(status)).is_none() {
            self.pending_sidecars += 1;
            self.waiting += 1;
        }
    }

    fn add_main(&mut self, container: &Container, pod: &Pod, status: Option<&ContainerStatus>) {
        let Some(state) = status.and_then(|s| s.state.as_ref()) else {
            self.unknown += 1;
            return;
        };
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(end) = &state.terminated {
            self.add_stopped(container, pod, end);
            self.succeeded += usize::from(end.exit_code == 0);
        } else if state.waiting.is_some() {
            match last_end(status) {
                Some(end) => self.add_stopped(container, pod, end),
                None => self.waiting += 1,
            }
        } else {
            self.unknown += 1;
        }
    }

    fn add_stopped(&mut self, container: &Container, pod: &Pod, end: &ContainerStateTerminated) {
        self.stopped += 1;
        self.stopped_for_good += usize::from(!restarts(container, pod, end));
    }
}

/// Whether what ended runs again: by its policy, or because all containers of the pod do.
fn restarts(container: &Container, pod: &Pod, end: &ContainerStateTerminated) -> bool {
    end.reason.as_deref() == Some(RESTARTING_ALL_CONTAINERS)
        || container_should_restart(container, pod, end.exit_code)
}

fn last_end(status: Option<&ContainerStatus>) -> Option<&ContainerStateTerminated> {
    status?.last_state.as_ref()?.terminated.as_ref()
}

#[cfg(test)]
mod tests;
