//! Allocates resources to pods, and room for those that are resized (upstream: `allocation_manager.go`).

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::checkpoint::CheckpointError;
use super::conditions::{INFEASIBLE, POD_RESIZE_PENDING, ResizeConditions};
use super::messages::ResizeMessage;
use super::requirements::requirements_equal;
use super::state::{PodResourceInfo, State, resource_info_for_pod};
use crate::admission::Rejection;
use crate::pod::{PodExt, PodUid};
use crate::pod_resources::{PodResourcesOptions, pod_requests};
use crate::qos::pod_qos;
use crate::quantity::Quantity;
use crate::recorder::{Recorder, reason};

/// As long as sources have not spoken, pending resizes are looked at so often.
const INITIAL_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How long after the last look at pending resizes the next one comes, if nothing asks for one before.
const RETRY_DELAY: Duration = Duration::from_secs(3 * 60);

/// What the manager needs of the kubelet.
pub trait AllocationHost: Send + Sync {
    /// A pod as its source has it.
    fn pod(&self, uid: &str) -> Option<Arc<Pod>>;
    /// Whether all sources have spoken: before, nobody knows what else is on the node.
    fn sources_ready(&self) -> bool;
    /// Whether a pod may have what its spec says instead of what was allocated to it. What can never work is rejected
    /// for [`INFEASIBLE`].
    fn can_resize(&self, pod: &Arc<Pod>, allocated: &Arc<Pod>) -> Result<(), Rejection>;
    /// A pod's worker should look at it.
    fn trigger_pod_sync(&self, pod: &Arc<Pod>);
}

/// What became of one pending resize.
enum Outcome {
    Allocated,
    Waits,
    GivenUp,
}

/// Knows what is allocated to every pod (`Manager`).
pub struct Manager {
    allocated: State,
    conditions: Arc<ResizeConditions>,
    recorder: Recorder,
    /// In the order in which they get what becomes free.
    pending: Mutex<Vec<PodUid>>,
    next_retry: Mutex<Instant>,
}

impl Manager {
    /// Goes on from what was allocated before.
    pub fn new(allocated: State, conditions: Arc<ResizeConditions>, recorder: Recorder) -> Self {
        let next_retry = Mutex::new(Instant::now() + INITIAL_RETRY_DELAY);
        Self { allocated, conditions, recorder, pending: Mutex::default(), next_retry }
    }

    /// How far resizes have come.
    pub fn conditions(&self) -> &Arc<ResizeConditions> {
        &self.conditions
    }

    /// What is kept: allocations, and resizes that wait, by pod.
    #[cfg(feature = "simulation")]
    pub(crate) fn kept(&self) -> [(&'static str, Vec<String>); 3] {
        let pending = self.pending.lock().iter().map(ToString::to_string).collect();
        let conditions = self.conditions.uids().iter().map(ToString::to_string).collect();
        [
            ("allocations", self.allocated.uids()),
            ("pending resizes", pending),
            ("resize conditions", conditions),
        ]
    }

    /// The pod with what was allocated to it instead of what its spec says, if that differs (`UpdatePodFromAllocation`).
    pub fn update_pod_from_allocation(&self, pod: &Arc<Pod>) -> Option<Arc<Pod>> {
        update_from_allocation(pod, &self.allocated.pod(&pod.uid())?).map(Arc::new)
    }

    /// The pod as it is allocated.
    pub fn allocated_pod(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.update_pod_from_allocation(pod).unwrap_or_else(|| pod.clone())
    }

    /// Those of the pods that something was allocated to, as they are allocated (`getAllocatedPods`). The others may yet
    /// be rejected.
    pub fn allocated_pods(&self, pods: impl IntoIterator<Item = Arc<Pod>>) -> Vec<Arc<Pod>> {
        let pods = pods.into_iter().filter(|pod| self.has_allocated_resources(&pod.uid()));
        pods.map(|pod| self.allocated_pod(&pod)).collect()
    }

    /// Pods that something was allocated to and that nobody has told of yet, as little of them as is known: what they
    /// have.
    pub fn strangers(&self, is_known: impl Fn(&str) -> bool) -> Vec<Arc<Pod>> {
        let strangers = self.allocated.pods().into_iter().filter(|(uid, _)| !is_known(uid));
        strangers.map(|(uid, allocated)| Arc::new(stranger(uid, allocated))).collect()
    }

    /// Whether a pod was admitted.
    pub fn has_allocated_resources(&self, uid: &str) -> bool {
        self.allocated.knows(uid)
    }

    /// Gives a pod what its spec says.
    pub fn set_allocated_resources(&self, pod: &Pod) -> Result<(), CheckpointError> {
        self.allocated.set_pod(&pod.uid(), resource_info_for_pod(pod))
    }

    /// Forgets a pod that its source no longer has.
    pub fn remove_pod(&self, uid: &str) {
        self.allocated.remove_pod(uid);
    }

    /// Forgets all pods but those that `keep` says.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.allocated.retain(&keep);
        self.conditions.retain(keep);
    }

    /// Looks at pending resizes now and then, until dropped.
    pub async fn run(&self, host: &dyn AllocationHost) {
        loop {
            let at = *self.next_retry.lock();
            tokio::time::sleep_until(at).await;
            if *self.next_retry.lock() <= Instant::now() {
                self.retry_pending_resizes(host);
            }
        }
    }

    /// Queues a resize that has not been allocated.
    pub fn push_pending_resize(&self, uid: &PodUid, host: &dyn AllocationHost) {
        let mut pending = self.pending.lock();
        if !pending.contains(uid) {
            pending.push(uid.clone());
            self.sort_pending_resizes(&mut pending, host);
        }
    }

    /// Whether any resize waits.
    pub fn has_pending_resizes(&self) -> bool {
        !self.pending.lock().is_empty()
    }

    /// Looks at all resizes that wait, in their order.
    pub fn retry_pending_resizes(&self, host: &dyn AllocationHost) {
        let mut pending = self.pending.lock();
        let is_ready = host.sources_ready();
        *self.next_retry.lock() = Instant::now() + if is_ready { RETRY_DELAY } else { INITIAL_RETRY_DELAY };
        if !is_ready {
            return;
        }
        pending.retain(|uid| {
            // A pod that is gone waits for nothing.
            let Some(pod) = host.pod(uid) else { return false };
            let before = self.conditions.get(uid);
            let outcome = self.handle_resize(&pod, host);
            if matches!(outcome, Outcome::Allocated) || !same_conditions(&before, &self.conditions.get(uid)) {
                host.trigger_pod_sync(&pod);
            }
            matches!(outcome, Outcome::Waits)
        });
    }

    /// `handlePodResourcesResize`.
    fn handle_resize(&self, pod: &Arc<Pod>, host: &dyn AllocationHost) -> Outcome {
        let (uid, generation) = (pod.uid(), pod.metadata.generation);
        let Some(allocated) = self.update_pod_from_allocation(pod) else {
            self.conditions.clear_pending(&uid);
            return Outcome::GivenUp;
        };
        if let Err(Rejection { reason: why, message }) = host.can_resize(pod, &allocated) {
            if self.conditions.set_pending(&uid, &why, &message, generation) {
                let event =
                    if why == INFEASIBLE { reason::RESIZE_INFEASIBLE } else { reason::RESIZE_DEFERRED };
                let message = ResizeMessage::Pending(&why, &message).format(pod, generation);
                self.recorder.warning(pod, event, message);
            }
            return if self.conditions.is_infeasible(&uid) { Outcome::GivenUp } else { Outcome::Waits };
        }
        if let Err(error) = self.set_allocated_resources(pod) {
            tracing::error!(pod = %pod.display_name(), %error, "a resize could not be written down, trying again later");
            return Outcome::Waits;
        }
        self.conditions.clear_pending(&uid);
        // What an earlier resize failed with says nothing of this one.
        self.conditions.clear_in_progress(&uid);
        self.conditions.set_in_progress(&uid, None, generation);
        let message = ResizeMessage::Started.format(pod, generation);
        self.recorder.normal(pod, reason::RESIZE_STARTED, message);
        Outcome::Allocated
    }

    /// First those that ask for no more than they have, then by priority, then guaranteed ones, then those that have
    /// waited longest (`sortPendingResizes`).
    fn sort_pending_resizes(&self, pending: &mut Vec<PodUid>, host: &dyn AllocationHost) {
        pending.retain(|uid| host.pod(uid).is_some());
        pending.sort_by_cached_key(|uid| {
            let pod = host.pod(uid).unwrap_or_default();
            let conditions = self.conditions.get(uid);
            let since = conditions.iter().find(|c| c.type_ == POD_RESIZE_PENDING);
            let since = since.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
            (
                self.is_increasing_requests(&pod),
                Reverse(pod.pod_spec().priority.unwrap_or_default()),
                pod_qos(&pod) != "Guaranteed",
                since.is_none(),
                since,
            )
        });
    }

    /// `isResizeIncreasingRequests`.
    fn is_increasing_requests(&self, pod: &Arc<Pod>) -> bool {
        let Some(allocated) = self.update_pod_from_allocation(pod) else { return false };
        let requests = |pod: &Pod| pod_requests(pod, PodResourcesOptions::default());
        let (old, new) = (requests(&allocated), requests(pod));
        ["cpu", "memory"].iter().any(|name| {
            let of =
                |all: &crate::pod_resources::Resources| all.get(*name).copied().unwrap_or(Quantity::ZERO);
            of(&new) > of(&old)
        })
    }
}

/// The pod with other resources than its spec says. None if nothing differs.
pub(crate) fn update_from_allocation(pod: &Pod, allocated: &PodResourceInfo) -> Option<Pod> {
    let differs = |c: &Container| {
        let own = allocated.containers.get(&c.name);
        own.is_some_and(|own| !requirements_equal(c.resources.as_ref(), Some(own)))
    };
    let pod_level = !requirements_equal(pod.pod_spec().resources.as_ref(), allocated.pod_level.as_ref());
    let containers = pod.init_containers().iter().chain(pod.containers());
    if !pod_level && !containers.into_iter().any(differs) {
        return None;
    }
    let mut pod = pod.clone();
    let spec: &mut PodSpec = pod.spec.get_or_insert_default();
    if pod_level {
        spec.resources.clone_from(&allocated.pod_level);
    }
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for container in containers.filter(|c| differs(c)) {
        container.resources = allocated.containers.get(&container.name).cloned();
    }
    Some(pod)
}

/// A pod of which nothing is known but what it has. Its init containers count as if they ran beside the others: that is
/// what it may need at most.
fn stranger(uid: String, allocated: PodResourceInfo) -> Pod {
    let container =
        |(name, resources)| Container { name, resources: Some(resources), ..Container::default() };
    let containers = allocated.containers.into_iter().map(container).collect();
    let spec = PodSpec { containers, resources: allocated.pod_level, ..PodSpec::default() };
    let metadata = ObjectMeta { uid: Some(uid), ..ObjectMeta::default() };
    Pod { metadata, spec: Some(spec), ..Pod::default() }
}

/// Whether nothing differs but the time of the last look.
fn same_conditions(
    a: &[k8s_openapi::api::core::v1::PodCondition],
    b: &[k8s_openapi::api::core::v1::PodCondition],
) -> bool {
    let key = |c: &k8s_openapi::api::core::v1::PodCondition| {
        (c.type_.clone(), c.reason.clone(), c.message.clone(), c.observed_generation)
    };
    a.iter().map(key).eq(b.iter().map(key))
}

#[cfg(test)]
mod tests;
