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
mod tests;
