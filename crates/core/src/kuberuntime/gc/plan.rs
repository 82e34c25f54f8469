//! What can go: decisions alone, over what the runtimes have.

use std::cmp::Reverse;
use std::time::Duration;

use coracle_provider::{ContainerState, SandboxState};
use jiff::{SignedDuration, Timestamp};

use super::GcPolicy;
use crate::kuberuntime::{RuntimeContainer, RuntimePod, RuntimeSandbox};

/// Dead containers of one name in one pod, the newest first (`evictUnit`).
type Unit<'a> = Vec<&'a RuntimeContainer>;

/// Containers to remove, each pod's oldest first (`evictContainers`).
pub(super) fn evictable_containers<'a>(
    pods: &'a [RuntimePod],
    policy: &GcPolicy,
    now: Timestamp,
    content_may_go: impl Fn(&str) -> bool,
) -> Vec<&'a RuntimeContainer> {
    let mut removed = Vec::new();
    let mut kept: Vec<Unit<'_>> = Vec::new();
    for pod in pods {
        let all = content_may_go(&pod.uid);
        let may_go = |container: &RuntimeContainer| {
            is_older_than(policy.min_age, container, now) && (all || !is_in_the_making(pod, container))
        };
        let units = dead_by_name(pod, may_go);
        if all {
            removed.extend(units.into_iter().flat_map(|unit| unit.into_iter().rev()));
        } else {
            kept.extend(units);
        }
    }
    if let Some(max) = policy.max_per_pod_container {
        enforce_max_per_unit(&mut kept, max, &mut removed);
    }
    if let Some(max) = policy.max_containers
        && count(&kept) > max
    {
        // Each unit keeps as many as any other, and one at least; if that is too many still, the oldest of all go.
        let share = max / kept.len();
        enforce_max_per_unit(&mut kept, share.max(1), &mut removed);
        let mut left: Vec<_> = kept.into_iter().flatten().collect();
        left.sort_by_key(|container| Reverse(container.created_at));
        removed.extend(left.drain(max.min(left.len())..).rev());
    }
    removed
}

/// All dead containers of a pod, the oldest of each name first.
pub(super) fn dead_containers(pod: &RuntimePod) -> Vec<&RuntimeContainer> {
    dead_by_name(pod, |_| true).into_iter().flat_map(|unit| unit.into_iter().rev()).collect()
}

/// The same, but for the newest `keep` of each name (`getContainersToDeleteInPod`).
pub(super) fn excess_containers(pod: &RuntimePod, keep: usize) -> Vec<&RuntimeContainer> {
    let mut units = dead_by_name(pod, |container| !is_in_the_making(pod, container));
    let mut removed = Vec::new();
    enforce_max_per_unit(&mut units, keep, &mut removed);
    removed
}

/// Sandboxes to remove, the oldest first (`evictSandboxes`): neither ready nor with containers; the newest one stays
/// with its pod.
pub(super) fn evictable_sandboxes(pod: &RuntimePod, content_may_go: bool) -> Vec<&RuntimeSandbox> {
    let candidates = pod.sandboxes.iter().skip(usize::from(!content_may_go));
    let is_used = |sandbox: &RuntimeSandbox| {
        sandbox.state == SandboxState::Ready || pod.containers.iter().any(|c| c.sandbox_id == sandbox.id)
    };
    let mut unused: Vec<_> = candidates.filter(|sandbox| !is_used(sandbox)).collect();
    unused.reverse();
    unused
}

fn dead_by_name(pod: &RuntimePod, may_go: impl Fn(&RuntimeContainer) -> bool) -> Vec<Unit<'_>> {
    let mut units: Vec<Unit<'_>> = Vec::new();
    // A pod's containers are sorted, the newest first.
    for container in pod.containers.iter().filter(|c| c.state != ContainerState::Running && may_go(c)) {
        match units.iter_mut().find(|unit| unit[0].name == container.name) {
            Some(unit) => unit.push(container),
            None => units.push(vec![container]),
        }
    }
    units
}

/// Somebody has made it and is about to start it. One that could not be started is soon followed by another.
fn is_in_the_making(pod: &RuntimePod, container: &RuntimeContainer) -> bool {
    container.state == ContainerState::Created
        && pod.find(&container.name).is_some_and(|newest| newest.id == container.id)
}

fn is_older_than(age: Duration, container: &RuntimeContainer, now: Timestamp) -> bool {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    now.duration_since(container.created_at) >= age
}

fn enforce_max_per_unit<'a>(units: &mut [Unit<'a>], max: usize, removed: &mut Vec<&'a RuntimeContainer>) {
    for unit in units {
        removed.extend(unit.drain(max.min(unit.len())..).rev());
    }
}

fn count(units: &[Unit<'_>]) -> usize {
    units.iter().map(Vec::len).sum()
}
