//! The phase of a pod (upstream: `getPhase`).

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

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
            Some(end) if end.exit_code != 0 && !container_should_restart(container, pod, end.exit_code) => {
                self.failed_init += 1;
            }
            Some(_) => {}
        }
    }

    fn add_sidecar(&mut self, status: Option<&ContainerStatus>) {
        let Some(state) = status.and_then(|s| s.state.as_ref()) else {
            self.unknown += 1;
            return;
        };
        if state.running.is_some() {
            self.running += 1;
            self.pending_sidecars += usize::from(status.and_then(|s| s.started) != Some(true));
        } else if state.waiting.is_some() && last_end(status).is_none() {
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
        self.stopped_for_good += usize::from(!container_should_restart(container, pod, end.exit_code));
    }
}

fn last_end(status: Option<&ContainerStatus>) -> Option<&ContainerStateTerminated> {
    status?.last_state.as_ref()?.terminated.as_ref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateWaiting, PodSpec};

    use super::*;

    /// Restart policy, containers, whether the pod is terminal, and the phase that follows.
    type Case = (&'static str, &'static [(&'static str, Option<S>)], bool, &'static str);

    #[derive(Clone, Copy)]
    enum S {
        Running,
        Waiting,
        WaitingAfter(i32),
        Ended(i32),
    }

    fn status(name: &str, state: S) -> ContainerStatus {
        let ended = |code| ContainerState {
            terminated: Some(ContainerStateTerminated { exit_code: code, ..Default::default() }),
            ..Default::default()
        };
        let waiting =
            || ContainerState { waiting: Some(ContainerStateWaiting::default()), ..Default::default() };
        let running =
            ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() };
        let (state, last_state, started) = match state {
            S::Running => (running, None, true),
            S::Waiting => (waiting(), None, false),
            S::WaitingAfter(code) => (waiting(), Some(ended(code)), false),
            S::Ended(code) => (ended(code), None, false),
        };
        ContainerStatus {
            name: name.into(),
            state: Some(state),
            last_state,
            started: Some(started),
            ..Default::default()
        }
    }

    fn phase_of(policy: &str, containers: &[(&str, Option<S>)], is_terminal: bool) -> &'static str {
        let make = |name: &str| Container {
            name: name.into(),
            restart_policy: name.starts_with("side").then(|| "Always".to_owned()),
            ..Default::default()
        };
        let is_init = |name: &&str| name.starts_with("init") || name.starts_with("side");
        let names: Vec<&str> = containers.iter().map(|(n, _)| *n).collect();
        let spec = PodSpec {
            restart_policy: Some(policy.into()),
            init_containers: Some(names.iter().filter(|n| is_init(n)).map(|n| make(n)).collect()),
            containers: names.iter().filter(|n| !is_init(n)).map(|n| make(n)).collect(),
            ..Default::default()
        };
        let statuses: Vec<_> = containers.iter().filter_map(|(n, s)| s.map(|s| status(n, s))).collect();
        let main_started = statuses
            .iter()
            .any(|s| !is_init(&s.name.as_str()) && s.state.as_ref().is_some_and(|s| s.waiting.is_none()));
        get_phase(&Pod { spec: Some(spec), ..Default::default() }, &statuses, is_terminal, main_started)
    }

    #[test]
    fn phases_are_upstreams() {
        use S::{Ended, Running, Waiting, WaitingAfter};
        let cases: &[Case] = &[
            ("Always", &[("a", None)], false, "Pending"),
            ("Always", &[("a", Some(Waiting))], false, "Pending"),
            ("Always", &[("a", Some(Running))], false, "Running"),
            ("Always", &[("a", Some(Running)), ("b", None)], false, "Pending"),
            ("Always", &[("a", Some(Running)), ("b", Some(Ended(1)))], false, "Running"),
            ("Always", &[("a", Some(Running)), ("b", Some(Waiting))], false, "Pending"),
            ("Always", &[("a", Some(WaitingAfter(1)))], false, "Running"),
            ("Always", &[("a", Some(Ended(0)))], false, "Running"),
            ("Always", &[("a", Some(Ended(0)))], true, "Succeeded"),
            ("Always", &[("a", Some(Ended(143)))], true, "Failed"),
            ("Never", &[("a", Some(Ended(0))), ("b", Some(Ended(0)))], false, "Succeeded"),
            ("Never", &[("a", Some(Ended(0))), ("b", Some(Ended(3)))], false, "Failed"),
            ("Never", &[("a", Some(Ended(0))), ("b", Some(Running))], false, "Running"),
            ("OnFailure", &[("a", Some(Ended(0)))], false, "Succeeded"),
            ("OnFailure", &[("a", Some(Ended(1)))], false, "Running"),
            ("OnFailure", &[("a", Some(WaitingAfter(1)))], false, "Running"),
            ("Never", &[("init", Some(Ended(1))), ("a", Some(Waiting))], false, "Failed"),
            ("Always", &[("init", Some(Ended(1))), ("a", Some(Waiting))], false, "Pending"),
            ("Always", &[("init", Some(Running)), ("a", Some(Waiting))], false, "Pending"),
            ("Always", &[("side", Some(Running)), ("a", Some(Running))], false, "Running"),
            ("Never", &[("side", Some(Running)), ("a", Some(Ended(0)))], false, "Running"),
            ("Never", &[("side", Some(Ended(137))), ("a", Some(Ended(0)))], false, "Succeeded"),
        ];
        for (i, (policy, containers, is_terminal, expected)) in cases.iter().enumerate() {
            assert_eq!(phase_of(policy, containers, *is_terminal), *expected, "case {i}");
        }
    }
}
