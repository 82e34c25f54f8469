//! Merging a new status into what was there (upstream: `updateStatusInternal`, `mergePodStatus`, `normalizeStatus`).

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{condition_type, is_owned_by_kubelet, is_shared_by_kubelet, keep_disruption_target};
use crate::clock::{api_now, api_time};
use crate::kuberuntime::{all_containers_could_restart, container_should_restart};
use crate::pod::{PodExt, container_status, is_restartable_init_container, phase, restart_policy};

/// The termination messages of a pod together (`MaxPodTerminationMessageLogLength`).
const MAX_TERMINATION_MESSAGES: usize = 12 * 1024;

/// A container that ended for good is said to run again: whoever generated that status was behind.
#[derive(Debug, thiserror::Error)]
#[error("terminated container {0} attempted illegal transition to non-terminated state")]
pub(super) struct IllegalTransition(String);

/// `checkContainerStateTransition`.
pub(super) fn check_container_state_transition(
    pod: &Pod,
    old: &PodStatus,
    new: &PodStatus,
) -> Result<(), IllegalTransition> {
    if pod.restart_policy() == restart_policy::ALWAYS || all_containers_could_restart(pod) {
        return Ok(());
    }
    let lists = [
        (pod.containers(), &old.container_statuses, &new.container_statuses),
        (pod.init_containers(), &old.init_container_statuses, &new.init_container_statuses),
    ];
    for (specs, old, new) in lists {
        for spec in specs.iter().filter(|c| !is_restartable_init_container(c)) {
            let find = |list: &Option<Vec<ContainerStatus>>| {
                container_status(list.as_deref().unwrap_or_default(), &spec.name)
                    .and_then(|s| s.state.clone())
            };
            let Some(ended) = find(old).and_then(|s| s.terminated) else { continue };
            if !container_should_restart(spec, pod, ended.exit_code)
                && find(new).is_some_and(|s| s.terminated.is_none())
            {
                return Err(IllegalTransition(spec.name.clone()));
            }
        }
    }
    Ok(())
}

/// Carries times over from the old status and brings everything into the form that the API keeps.
pub(super) fn complete(pod: &Pod, old: &PodStatus, mut new: PodStatus) -> PodStatus {
    for condition in new.conditions.iter_mut().flatten() {
        let before = find_condition(old, &condition.type_).filter(|c| c.status == condition.status);
        let time = before.and_then(|c| c.last_transition_time.clone());
        // Conditions about resizes come with their own: a new reason counts as a transition.
        if is_owned_by_kubelet(&condition.type_) && condition.last_transition_time.is_none() {
            condition.last_transition_time = Some(time.unwrap_or_else(api_now));
        }
    }
    stamp_disruption_target(old, &mut new);
    new.start_time = old.start_time.clone().or(new.start_time).or_else(|| Some(api_now()));
    new.observed_generation = new.observed_generation.max(old.observed_generation);
    // Others write these; they are kept as they were seen.
    new.resource_claim_statuses.clone_from(&old.resource_claim_statuses);
    new.nominated_node_name.clone_from(&old.nominated_node_name);
    if new.volume_health.as_ref().is_none_or(Vec::is_empty) {
        new.volume_health.clone_from(&old.volume_health);
    }
    normalize(pod, &mut new);
    new
}

/// Whole seconds, and messages that fit (`normalizeStatus`). Lists are in the order of the spec already.
fn normalize(pod: &Pod, status: &mut PodStatus) {
    let spec = pod.pod_spec();
    let containers = spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len);
    let room = MAX_TERMINATION_MESSAGES / containers.max(1);
    normalize_time(&mut status.start_time);
    let lists = [
        &mut status.container_statuses,
        &mut status.init_container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            normalize_state(state, room);
        }
    }
}

fn normalize_state(state: &mut ContainerState, room: usize) {
    if let Some(running) = &mut state.running {
        normalize_time(&mut running.started_at);
    }
    if let Some(terminated) = &mut state.terminated {
        normalize_time(&mut terminated.started_at);
        normalize_time(&mut terminated.finished_at);
        if let Some(message) = &mut terminated.message {
            truncate(message, room);
        }
    }
}

fn normalize_time(time: &mut Option<Time>) {
    if let Some(time) = time {
        *time = api_time(time.0);
    }
}

fn truncate(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Whether nothing differs that the kubelet writes (`isPodStatusByKubeletEqual`).
pub(super) fn equal_by_kubelet(old: &PodStatus, new: &PodStatus) -> bool {
    let owned = |status: &PodStatus| -> Vec<PodCondition> {
        let is_ours = |c: &&PodCondition| is_owned_by_kubelet(&c.type_) || is_shared_by_kubelet(&c.type_);
        let mut conditions: Vec<PodCondition> =
            status.conditions.iter().flatten().filter(is_ours).cloned().collect();
        conditions.iter_mut().for_each(|c| {
            c.last_transition_time = None;
            c.last_probe_time = None;
        });
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        conditions
    };
    if owned(old) != owned(new) {
        return false;
    }
    let rest = |status: &PodStatus| PodStatus {
        conditions: None,
        resource_claim_statuses: None,
        extended_resource_claim_status: None,
        node_allocatable_resource_claim_statuses: None,
        nominated_node_name: None,
        ..status.clone()
    };
    rest(old) == rest(new)
}

/// What is to be written now (`mergePodStatus`): a terminal phase is held back while containers may still run, and a
/// terminal pod is never ready.
pub(super) fn merge_pod_status(
    old: &PodStatus,
    new: &PodStatus,
    could_have_running_containers: bool,
) -> PodStatus {
    let mut merged = new.clone();
    let is_terminal = |status: &PodStatus| phase::is_terminal(status.phase.as_deref().unwrap_or_default());
    let is_transition = !is_terminal(old) && is_terminal(new);
    if is_transition && !could_have_running_containers {
        // The time at which it is told counts, not the one at which it began.
        for condition in merged.conditions.iter_mut().flatten().filter(|c| is_shared_by_kubelet(&c.type_)) {
            condition.last_transition_time = None;
        }
        stamp_disruption_target(old, &mut merged);
    } else {
        // That the pod was taken away is told with its end, not before and not again.
        if let Some(conditions) = &mut merged.conditions {
            conditions.retain(|c| !is_shared_by_kubelet(&c.type_));
        }
        keep_disruption_target(old, &mut merged);
    }
    if is_transition && could_have_running_containers {
        merged.phase.clone_from(&old.phase);
        merged.reason.clone_from(&old.reason);
        merged.message.clone_from(&old.message);
    }
    if is_terminal(&merged) {
        let reason =
            if merged.phase.as_deref() == Some(phase::FAILED) { "PodFailed" } else { "PodCompleted" };
        for condition in merged.conditions.iter_mut().flatten() {
            let about_readiness =
                [condition_type::READY, condition_type::CONTAINERS_READY].contains(&condition.type_.as_str());
            if about_readiness && condition.status == "True" {
                condition.status = "False".to_owned();
                condition.reason = Some(reason.to_owned());
                condition.message = None;
                condition.last_transition_time = Some(api_now());
            }
        }
    }
    merged
}

/// Its time changes with its status; one that comes with a time has it from elsewhere.
fn stamp_disruption_target(old: &PodStatus, new: &mut PodStatus) {
    let before = find_condition(old, condition_type::DISRUPTION_TARGET).cloned();
    let targets = new.conditions.iter_mut().flatten().filter(|c| is_shared_by_kubelet(&c.type_));
    for target in targets.filter(|c| c.last_transition_time.is_none()) {
        let same = before.as_ref().filter(|c| c.status == target.status);
        let time = same.and_then(|c| c.last_transition_time.clone());
        target.last_transition_time = Some(time.unwrap_or_else(api_now));
    }
}

fn find_condition<'a>(status: &'a PodStatus, condition_type: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == condition_type)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodSpec};

    use super::*;

    fn condition(kind: &str, status: &str) -> PodCondition {
        PodCondition { type_: kind.into(), status: status.into(), ..PodCondition::default() }
    }

    fn status(phase: &str, ready: &str) -> PodStatus {
        PodStatus {
            phase: Some(phase.into()),
            conditions: Some(vec![condition("Ready", ready), condition("ContainersReady", ready)]),
            ..PodStatus::default()
        }
    }

    #[tokio::test]
    async fn a_terminal_phase_waits_until_nothing_can_run() {
        let (old, new) = (status("Running", "True"), status("Succeeded", "True"));
        assert_eq!(merge_pod_status(&old, &new, true).phase.as_deref(), Some("Running"));
        let merged = merge_pod_status(&old, &new, false);
        assert_eq!(merged.phase.as_deref(), Some("Succeeded"));
        assert!(merged.conditions.iter().flatten().all(|c| c.status == "False"));
    }

    #[tokio::test(start_paused = true)]
    async fn transition_times_change_with_the_status_only() {
        let pod = Pod::default();
        let first = complete(&pod, &PodStatus::default(), status("Running", "True"));
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        let second = complete(&pod, &first, status("Running", "True"));
        assert_eq!(first.conditions, second.conditions);
        assert_eq!(first.start_time, second.start_time);
        let third = complete(&pod, &second, status("Running", "False"));
        assert_ne!(
            second.conditions.unwrap()[0].last_transition_time,
            third.conditions.unwrap()[0].last_transition_time
        );
    }

    #[test]
    fn an_ended_container_does_not_run_again() {
        let container = k8s_openapi::api::core::v1::Container { name: "a".into(), ..Default::default() };
        let spec = PodSpec {
            restart_policy: Some("Never".into()),
            containers: vec![container],
            ..PodSpec::default()
        };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let with = |state: ContainerState| PodStatus {
            container_statuses: Some(vec![ContainerStatus {
                name: "a".into(),
                state: Some(state),
                ..ContainerStatus::default()
            }]),
            ..PodStatus::default()
        };
        let ended =
            ContainerState { terminated: Some(ContainerStateTerminated::default()), ..Default::default() };
        let old = with(ended.clone());
        assert!(check_container_state_transition(&pod, &old, &with(ContainerState::default())).is_err());
        assert!(check_container_state_transition(&pod, &old, &with(ended)).is_ok());
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let mut text = "aü".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_pod_was_taken_away_is_told_with_its_end() {
        let pod = Pod::default();
        let target = |status: &PodStatus| find_condition(status, "DisruptionTarget").cloned();
        let running = status("Running", "True");
        let mut taken = status("Failed", "True");
        taken.conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True"));
        let taken = complete(&pod, &running, taken);
        let began = target(&taken).unwrap().last_transition_time;
        assert!(began.is_some());

        tokio::time::advance(std::time::Duration::from_secs(30)).await;
        let held_back = merge_pod_status(&running, &taken, true);
        assert_eq!((held_back.phase.as_deref(), target(&held_back)), (Some("Running"), None));
        let told = merge_pod_status(&running, &taken, false);
        assert_eq!(told.phase.as_deref(), Some("Failed"));
        assert_ne!(target(&told).unwrap().last_transition_time, began, "it is told now");
        assert_eq!(target(&merge_pod_status(&told, &taken, false)), target(&told), "once");

        assert!(!equal_by_kubelet(&running, &told));
        let mut of_others = running.clone();
        of_others.conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True"));
        assert_eq!(
            target(&merge_pod_status(&of_others, &running, false)),
            target(&of_others),
            "others say it, too"
        );
    }

    #[test]
    fn what_the_status_has_from_elsewhere_stays() {
        let old = PodStatus {
            start_time: Some(api_time("2026-01-01T00:00:00Z".parse().unwrap())),
            observed_generation: Some(4),
            volume_health: Some(Vec::new()),
            nominated_node_name: Some("n".into()),
            ..status("Running", "True")
        };
        let new = PodStatus { observed_generation: Some(3), ..status("Running", "True") };
        let completed = complete(&Pod::default(), &old, new);
        assert_eq!(completed.start_time, old.start_time);
        assert_eq!(completed.observed_generation, Some(4));
        assert_eq!(completed.volume_health, old.volume_health);
        assert_eq!(completed.nominated_node_name, old.nominated_node_name);
    }

    #[test]
    fn messages_share_the_room_of_a_pod() {
        let container =
            |name: &str| k8s_openapi::api::core::v1::Container { name: name.into(), ..Default::default() };
        let spec = PodSpec {
            containers: vec![container("a"), container("b")],
            init_containers: Some(vec![container("c")]),
            ..PodSpec::default()
        };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let terminated = ContainerStateTerminated { message: Some("x".repeat(9000)), ..Default::default() };
        let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
        let mut long = PodStatus {
            container_statuses: Some(vec![ContainerStatus {
                state: Some(state.clone()),
                last_state: Some(state),
                ..ContainerStatus::default()
            }]),
            ..PodStatus::default()
        };
        normalize(&pod, &mut long);
        let of = |state: &Option<ContainerState>| {
            state.clone().unwrap().terminated.unwrap().message.unwrap().len()
        };
        let container = &long.container_statuses.unwrap()[0];
        assert_eq!((of(&container.state), of(&container.last_state)), (4096, 4096));
    }
}
