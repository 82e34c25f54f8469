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

/// The status without the ends that were made up because the manifest of a static pod was gone: another agent that finds it
/// again begins another life. One that has come to its own end, which its phase says, stays ended.
pub(super) fn without_made_up_ends(mut status: PodStatus) -> PodStatus {
    if phase::is_terminal(status.phase.as_deref().unwrap_or_default()) {
        return status;
    }
    let lists = [&mut status.init_container_statuses, &mut status.container_statuses];
    for container in lists.into_iter().flatten().flatten() {
        let end = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        if end.is_some_and(|end| end.message.as_deref() == Some(LOST)) {
            container.state = None;
        }
    }
    status
}

fn was_terminated(status: &ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.waiting.is_some())
}

/// Whether main containers may have run (`hasPodInitialized`).
fn has_pod_initialized(pod: &Pod, status: &PodStatus) -> bool {
    if pod.init_containers().is_empty() {
        return true;
    }
    if status.container_statuses.iter().flatten().any(|s| was_terminated(s) || !is_waiting(s)) {
        return true;
    }
    let Some(last_status) = status.init_container_statuses.iter().flatten().last() else { return false };
    let Some(last) = pod.init_containers().iter().find(|c| c.name == last_status.name) else { return false };
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A state by its letter: `w`aiting, `r`unning, an exit code, or none; `w0` waits after it ended with 0.
    fn container(name: &str, state: &str) -> Value {
        let ended = |code: &str| json!({"terminated": {"exitCode": code.parse::<i32>().unwrap()}});
        let (state, last) = match state {
            "w" => (json!({"waiting": {}}), json!({})),
            "r" => (json!({"running": {}}), json!({})),
            "none" => (json!({}), json!({})),
            "none0" => (json!({}), ended("0")),
            state => match state.strip_prefix('w') {
                Some(code) => (json!({"waiting": {}}), ended(code)),
                None => (ended(state), json!({})),
            },
        };
        json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": state, "lastState": last})
    }

    /// What became of containers: `lost`, `w`aiting, or the exit code that was known.
    fn told(statuses: &Option<Vec<ContainerStatus>>) -> String {
        let told = statuses.iter().flatten().map(|status| match status.state.as_ref() {
            Some(state) if state.waiting.is_some() => "w".to_owned(),
            Some(state) => match &state.terminated {
                Some(end) if end.reason.as_deref() == Some("ContainerStatusUnknown") => {
                    assert_eq!((end.exit_code, end.message.as_deref()), (137, Some(LOST)));
                    "lost".to_owned()
                }
                Some(end) => end.exit_code.to_string(),
                None => "other".to_owned(),
            },
            None => "none".to_owned(),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    fn terminate(init: &str, main: &str, phase: &str, is_static: bool) -> (String, String, String) {
        let list = |states: &str, prefix: &str| -> Vec<Value> {
            states
                .split_whitespace()
                .enumerate()
                .map(|(i, s)| container(&format!("{prefix}{i}"), s))
                .collect()
        };
        let (init, main) = (list(init, "init-"), list(main, ""));
        let source = is_static.then_some("file");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"annotations": {"kubernetes.io/config.source": source.unwrap_or("api")}},
            "spec": {"initContainers": init.iter().map(|c| json!({"name": c["name"]})).collect::<Vec<_>>(),
                "containers": main.iter().map(|c| json!({"name": c["name"]})).collect::<Vec<_>>()},
            "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": main}}))
        .unwrap();
        let status = terminated_status(&pod, pod.pod_status().clone());
        let phase = status.phase.unwrap_or_default();
        (told(&status.init_container_statuses), told(&status.container_statuses), phase)
    }

    #[test]
    fn a_static_pod_that_is_found_again_has_no_made_up_ends() {
        let unfinished =
            json!({"phase": "Pending", "containerStatuses": [container("a", "w"), container("b", "1")]});
        let mut status: PodStatus = serde_json::from_value(unfinished).unwrap();
        let known = status.clone();
        end_all(status.container_statuses.iter_mut().flatten().take(1));
        let begun = without_made_up_ends(status.clone());
        let (a, b) =
            (&begun.container_statuses.as_ref().unwrap()[0], &begun.container_statuses.as_ref().unwrap()[1]);
        assert_eq!((a.state.clone(), b), (None, &known.container_statuses.unwrap()[1]));
        status.phase = Some(phase::FAILED.to_owned());
        assert_eq!(without_made_up_ends(status.clone()), status, "it has come to its end");
    }

    /// `TestTerminatePod`, `TestTerminatePodWaiting` and `TestTerminatePod_DefaultUnknownStatus`.
    #[test]
    fn what_may_have_run_has_an_end() {
        let cases = [
            ("none 0 3", "none 2 0", "lost 0 3", "lost 2 0"),
            ("none 0 w", "none 2 w", "lost 0 w", "lost 2 lost"),
            ("", "2", "", "2"),
            // last termination state set
            ("", "w2", "", "lost"),
            // no previous state
            ("", "w", "", "lost"),
            // uninitialized pod defaults the first init container
            ("w", "w", "lost", "w"),
            // uninitialized pod defaults only the first init container
            ("w w", "w", "lost w", "w"),
            // uninitialized pod defaults gaps
            ("w w 1 w", "w", "lost lost 1 w", "w"),
            // failed last container is uninitialized
            ("w w 1", "w", "lost lost 1", "w"),
            // successful last container is initialized
            ("w w 0", "w", "lost lost 0", "lost"),
            // successful last previous container is initialized, and container state is overwritten
            ("w w w0", "w", "lost lost lost", "lost"),
            // running container proves initialization
            ("w", "r", "lost", "lost"),
            // evidence of terminated container proves initialization
            ("w", "0", "lost", "0"),
            // evidence of previously terminated container proves initialization
            ("w", "none0", "lost", "lost"),
        ];
        for (init, main, init_after, main_after) in cases {
            let (init_told, main_told, phase) = terminate(init, main, "Running", false);
            assert_eq!(
                (init_told.as_str(), main_told.as_str()),
                (init_after, main_after),
                "{init:?} {main:?}"
            );
            assert_eq!(phase, "Failed");
        }
    }

    /// `TestTerminatePod_EnsurePodPhaseIsTerminal`.
    #[test]
    fn the_phase_is_terminal() {
        for (before, after) in [
            ("Pending", "Failed"),
            ("Running", "Failed"),
            ("Succeeded", "Succeeded"),
            ("Failed", "Failed"),
            ("Unknown", "Failed"),
            ("SomeUnknownPhase", "Failed"),
        ] {
            assert_eq!(terminate("", "", before, false).2, after, "{before}");
        }
        assert_eq!(terminate("", "r", "Running", true).2, "Running", "a static one may come back");
    }
}
