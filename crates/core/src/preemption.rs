//! Which pods make room for a critical one (upstream: `pkg/kubelet/preemption/preemption.go`).

use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

use crate::admission::{PredicateFailure, Rejection};
use crate::pod::{PodExt, phase};
use crate::pod_resources::resource_request;
use crate::qos::pod_qos;
use crate::recorder::reason::PREEMPT_CONTAINER;

/// What is told of a pod that had to make room.
pub const PREEMPTED: &str = "Preempted in order to admit critical pod";

/// From this priority on, a pod is critical (`SystemCriticalPriority`).
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether the node needs this pod (`IsCriticalPod`).
pub fn is_critical_pod(pod: &Pod) -> bool {
    let priority = pod.pod_spec().priority;
    pod.is_static() || pod.is_mirror() || priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

/// Finds the pods that have to go so that a pod fits that did not for these reasons, of which there is at least one
/// (`HandleAdmissionFailure`). None go for a pod that is not critical, or that does not fit for another reason than
/// room. `pods` are those that were admitted.
pub fn handle_admission_failure(
    pod: &Pod,
    failures: &[PredicateFailure],
    pods: &[Arc<Pod>],
) -> Result<Vec<Arc<Pod>>, Rejection> {
    let is_other = |f: &&PredicateFailure| !matches!(f, PredicateFailure::InsufficientResource { .. });
    let hopeless = if is_critical_pod(pod) { failures.iter().find(is_other) } else { failures.first() };
    if let Some(failure) = hopeless {
        return Err(failure.into());
    }
    let missing = failures.iter().filter_map(Requirement::of).collect();
    pods_to_preempt(pod, pods, &Requirements(missing)).map_err(|NoPodsFound(missing)| Rejection {
        reason: "UnexpectedAdmissionError".into(),
        message: format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set \
             of pods to preempt: no set of running pods found to reclaim resources: {missing}"
        ),
    })
}

/// What the status of a pod says that had to make room.
pub fn preempted_status(pod: &Pod, status: &mut PodStatus) {
    status.phase = Some(phase::FAILED.to_owned());
    status.reason = Some(PREEMPT_CONTAINER.to_owned());
    status.message = Some(PREEMPTED.to_owned());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
}

/// What is missing for all of it.
struct NoPodsFound(String);

/// So much of a resource is missing (`admissionRequirement`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    resource: String,
    amount: i64,
}

impl Requirement {
    fn of(failure: &PredicateFailure) -> Option<Self> {
        let PredicateFailure::InsufficientResource { resource, requested, used, capacity } = failure else {
            return None;
        };
        Some(Self { resource: resource.clone(), amount: requested - (capacity - used) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirements(Vec<Requirement>);

impl Requirements {
    /// How far a pod is from giving all of it, each resource counted the same.
    #[expect(clippy::cast_precision_loss, reason = "a measure of distance, as upstream")]
    fn distance(&self, pod: &Pod) -> f64 {
        let squares = self.0.iter().map(|requirement| {
            let remaining = (requirement.amount - resource_request(pod, &requirement.resource)).max(0) as f64;
            (remaining / requirement.amount as f64).powi(2)
        });
        squares.sum()
    }

    /// What is still missing once these pods are gone.
    fn without<'a>(&self, pods: impl IntoIterator<Item = &'a Arc<Pod>> + Clone) -> Self {
        let remaining = self.0.iter().filter_map(|requirement| {
            let freed: i64 =
                pods.clone().into_iter().map(|pod| resource_request(pod, &requirement.resource)).sum();
            let amount = requirement.amount - freed;
            (amount > 0).then(|| Requirement { resource: requirement.resource.clone(), amount })
        });
        Self(remaining.collect())
    }

    fn none_found(&self) -> NoPodsFound {
        let mut text = "[".to_owned();
        for Requirement { resource, amount } in &self.0 {
            let _ = write!(text, "(res: {resource}, q: {amount}), ");
        }
        NoPodsFound(text + "]")
    }
}

/// As few as will do, and of the lowest classes: a guaranteed pod goes only for what all others together do not give
/// (`getPodsToPreempt`).
fn pods_to_preempt(
    preemptor: &Pod,
    pods: &[Arc<Pod>],
    missing: &Requirements,
) -> Result<Vec<Arc<Pod>>, NoPodsFound> {
    let of_class = |class: &str| -> Vec<Arc<Pod>> {
        let preemptable = pods.iter().filter(|pod| is_preemptable(preemptor, pod));
        preemptable.filter(|pod| pod_qos(pod) == class).cloned().collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of_class("BestEffort"), of_class("Burstable"), of_class("Guaranteed"));
    let remaining = missing.without(best_effort.iter().chain(&burstable).chain(&guaranteed));
    if !remaining.0.is_empty() {
        return Err(remaining.none_found());
    }
    let of_guaranteed = pods_by_distance(guaranteed, missing.without(best_effort.iter().chain(&burstable)))?;
    let of_burstable =
        pods_by_distance(burstable, missing.without(best_effort.iter().chain(&of_guaranteed)))?;
    let of_best_effort =
        pods_by_distance(best_effort, missing.without(of_burstable.iter().chain(&of_guaranteed)))?;
    Ok([of_best_effort, of_burstable, of_guaranteed].concat())
}

/// Takes the pod that gives most of what is missing, the smaller of two that give the same, until nothing is missing
/// (`getPodsToPreemptByDistance`).
fn pods_by_distance(
    mut pods: Vec<Arc<Pod>>,
    mut missing: Requirements,
) -> Result<Vec<Arc<Pod>>, NoPodsFound> {
    let mut chosen = Vec::new();
    while !missing.0.is_empty() {
        let mut best: Option<(usize, f64)> = None;
        for (i, pod) in pods.iter().enumerate() {
            let distance = missing.distance(pod);
            let is_better = best.is_none_or(|(b, shortest)| {
                distance < shortest || (distance == shortest && has_smaller_request(pod, &pods[b]))
            });
            if is_better {
                best = Some((i, distance));
            }
        }
        let Some((index, _)) = best else { return Err(missing.none_found()) };
        let pod = pods.swap_remove(index);
        missing = missing.without([&pod]);
        chosen.push(pod);
    }
    Ok(chosen)
}

/// `Preemptable`.
fn is_preemptable(preemptor: &Pod, pod: &Pod) -> bool {
    if is_critical_pod(preemptor) && !is_critical_pod(pod) {
        return true;
    }
    let priorities = preemptor.pod_spec().priority.zip(pod.pod_spec().priority);
    priorities.is_some_and(|(preemptor, pod)| preemptor > pod)
}

/// By memory, then by processors; no more counts as smaller (`smallerResourceRequest`).
fn has_smaller_request(a: &Pod, b: &Pod) -> bool {
    let requests = |pod| ["memory", "cpu"].map(|resource| resource_request(pod, resource));
    requests(a) <= requests(b)
}

#[cfg(test)]
mod tests;
