//! From a new pod to a worker for it, or to its rejection (upstream: the admission in `HandlePodAdditions`, and
//! `killPodNow`).
//!
//! Upstream's loop stands still while the Node is read or pods are stopped to make room. Here the pod waits, and with
//! it those that come after it and would take that room; everything else goes on.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Kubelet;
use super::pending_admissions::{Pending, State};
use crate::admission::{NotAdmitted, PodAdmitAttributes, PredicateFailure, Rejection};
use crate::metrics;
use crate::pod::{PodExt, PodUid, phase};
use crate::pod_workers::{KillPodOptions, PodStatusFn, PodWorkers, SyncPodType, UpdatePodOptions};
use crate::preemption::{PREEMPTED, handle_admission_failure, preempted_status};
use crate::qos::pod_qos;
use crate::recorder::{Recorder, reason};

/// What a pod gets to stop in at least, before somebody is told that it does not (`killPodNow`).
const MIN_KILL_TIMEOUT: i64 = 10;

impl Kubelet {
    /// Starts a pod that is new to this agent, unless it is not admitted.
    pub(super) fn add_pod(&self, pod: Arc<Pod>) {
        let uid = pod.uid();
        let ends = self.pod_workers.is_pod_termination_requested(&uid) || pod.is_deleting();
        if ends || phase::is_terminal(pod.phase()) {
            self.update_worker(pod, SyncPodType::Create);
        } else if self.was_admitted_before(&pod) {
            self.start_admitted(pod);
        } else if self.pending_admissions.is_making_room() {
            self.pending_admissions.add(uid, State::AfterOthers);
        } else {
            self.judge_when_known(pod);
        }
    }

    /// A pod is to end: it waits for nothing any more, and those that waited for it have their turn.
    pub(super) fn end_admission(&self, uid: &str) {
        if self.pending_admissions.remove(uid) {
            self.continue_admissions();
        }
    }

    /// Goes on with pods that waited for all sources to tell their pods.
    pub(super) fn end_wait_for_sources(&self) {
        self.pending_admissions.sources_are_ready();
        self.continue_admissions();
    }

    /// Goes on with pods for which what they waited for has come about.
    pub(super) fn continue_admissions(&self) {
        while let Some(Pending { uid, state }) = self.pending_admissions.next() {
            let Some(pod) = self.pod_manager.get(&uid) else { continue };
            match state {
                _ if phase::is_terminal(pod.phase()) => self.update_worker(pod, SyncPodType::Create),
                State::RoomMade => self.start_admitted(pod),
                // Its features have been looked at before the Node was read.
                State::NodeRead(node) => self.judge(pod, node.as_ref(), true, None),
                State::ClassRead(runs) => self.judge(pod, self.objects.node().as_ref(), false, runs),
                _ => self.judge_when_known(pod),
            }
        }
    }

    /// Whether an agent on this node has let the pod in before: it has given it resources, written of its containers, or a
    /// runtime knows the pod. Then it is not asked again for what may have changed since. A static pod that comes back
    /// has the UID of its life before, which has given up its place: only what it was given since counts.
    pub(super) fn was_admitted_before(&self, pod: &Pod) -> bool {
        if phase::is_terminal(pod.phase()) {
            return false;
        }
        if self.allocation_manager.has_allocated_resources(&pod.uid()) {
            return true;
        }
        let in_runtime = self.pod_cache.get(&pod.uid());
        let is_seen =
            pod.pod_status().container_statuses.as_ref().is_some_and(|statuses| !statuses.is_empty())
                || !in_runtime.sandboxes.is_empty()
                || !in_runtime.containers.is_empty();
        is_seen && !pod.is_static()
    }

    /// On a node with runtimes of several kinds, the RuntimeClass may have to be read first.
    fn judge_when_known(&self, pod: Arc<Pod>) {
        match self.runtime.runs_without_asking(&pod) {
            Some(runs) => self.judge(pod, self.objects.node().as_ref(), false, Some(runs)),
            None => self.read_class_for(pod),
        }
    }

    fn judge(
        &self,
        pod: Arc<Pod>,
        node: Option<&Arc<Node>>,
        node_is_fresh: bool,
        runs: Option<ArtifactKind>,
    ) {
        let others = self.admitted_pods(&pod);
        let node = node.map(AsRef::as_ref);
        // What it was given counts, not what it has asked for since.
        let allocated = self.allocation_manager.allocated_pod(&pod);
        if let Err(rejection) = self.eviction.admit(&allocated) {
            return self.reject_pod(&pod, &rejection);
        }
        let attributes = PodAdmitAttributes { pod: &allocated, other_pods: &others, node, runs };
        let failures = match self.admission.can_admit_pod(&attributes) {
            Ok(()) if self.place_may_be_taken(&attributes) => {
                return self.pending_admissions.add(pod.uid(), State::AfterSources);
            }
            Ok(()) => return self.start_admitted(pod),
            Err(NotAdmitted::Rejected(rejection)) => return self.reject_pod(&pod, &rejection),
            Err(NotAdmitted::DoesNotFit(failures)) => failures,
        };
        if !node_is_fresh && failures.iter().all(|f| f.is_about_node_labels()) {
            return self.read_node_for(&pod);
        }
        match handle_admission_failure(&allocated, &failures, &others) {
            Ok(victims) => {
                count_preemptions(&failures, victims.len());
                self.make_room_for(&pod, victims);
            }
            Err(rejection) => self.reject_pod(&pod, &rejection),
        }
    }

    /// Whether a pod fits only as long as pods that had a place before this agent started are not there: a source that has
    /// not told its pods yet may still have them.
    fn place_may_be_taken(&self, attributes: &PodAdmitAttributes<'_>) -> bool {
        if self.sources_ready.all_ready() {
            return false;
        }
        let mut others = self.allocation_manager.strangers(|uid| self.pod_manager.get(uid).is_some());
        others.extend_from_slice(attributes.other_pods);
        let attributes = PodAdmitAttributes { other_pods: &others, ..*attributes };
        self.admission.can_admit_pod(&attributes).is_err()
    }

    /// Pods that count against the node's room (`GetActivePods`), as they are allocated, without one.
    pub(super) fn admitted_pods(&self, but: &Pod) -> Vec<Arc<Pod>> {
        let pods = self.pod_manager.pods().into_iter();
        let pods = pods.filter(|pod| pod.uid() != but.uid() && !self.is_pod_inactive(pod));
        let pods = pods.filter(|pod| self.pending_admissions.is_admitted(&pod.uid()));
        pods.map(|pod| self.allocation_manager.allocated_pod(&pod)).collect()
    }

    /// Whether a pod needs nothing of the node any more (`isPodInactive`): it ended, was rejected, or is deleted before
    /// it began.
    pub(super) fn is_pod_inactive(&self, pod: &Pod) -> bool {
        let uid = pod.uid();
        let never_started = || pod.is_deleting() && !self.was_admitted_before(pod);
        if self.pod_workers.is_pod_known_terminated(&uid) || never_started() {
            return true;
        }
        let ended = phase::is_terminal(pod.phase()) || self.status_manager.has_ended(&uid);
        ended && !self.pod_workers.is_pod_termination_requested(&uid)
    }

    /// Whether a pod has ended without having begun. It is not looked at again, whatever changes about it.
    pub(super) fn was_rejected(&self, pod: &Pod) -> bool {
        let uid = pod.uid();
        self.status_manager.has_ended(&uid)
            && !phase::is_terminal(pod.phase())
            && !self.pod_workers.knows(&uid)
    }

    fn read_class_for(&self, pod: Arc<Pod>) {
        let (objects, providers) = (self.objects.clone(), self.providers.clone());
        self.wait_for(pod.uid(), State::ReadingClass, async move {
            let class = pod.pod_spec().runtime_class_name.as_deref().unwrap_or_default();
            // A class that is not there is told when the sandbox is made; it may come yet.
            let class = objects.runtime_class(class).await.ok();
            State::ClassRead(class.and_then(|class| Some(providers.for_handler(&class.handler)?.runs())))
        });
    }

    fn read_node_for(&self, pod: &Pod) {
        let objects = self.objects.clone();
        self.wait_for(pod.uid(), State::ReadingNode, async move {
            State::NodeRead(match objects.fetch_node().await {
                Ok(node) => node,
                Err(error) => {
                    warn!(%error, "reading the Node anew failed, going by what was seen last");
                    objects.node()
                }
            })
        });
    }

    /// Stops pods, and admits another one once they are gone, or did not go in time: they are being stopped all the
    /// same.
    fn make_room_for(&self, pod: &Pod, victims: Vec<Arc<Pod>>) {
        let mut kills = Vec::new();
        for victim in victims {
            info!(pod = %victim.display_name(), critical = %pod.display_name(), "preempting pod to free up resources");
            self.recorder.warning(&victim, reason::PREEMPT_CONTAINER, PREEMPTED);
            let preempted = victim.clone();
            let status_fn: PodStatusFn = Arc::new(move |status| preempted_status(&preempted, status));
            kills.push(kill_pod_now(&self.pod_workers, self.recorder.clone(), victim, None, status_fn));
        }
        self.wait_for(pod.uid(), State::MakingRoom, async move {
            futures::future::join_all(kills).await;
            State::RoomMade
        });
    }

    fn wait_for(&self, uid: PodUid, state: State, next: impl Future<Output = State> + Send + 'static) {
        self.pending_admissions.wait_for(uid, state, next, self.work_queue.clone());
    }

    /// The pod fails here and now, and says why (`rejectPod`).
    fn reject_pod(&self, pod: &Arc<Pod>, rejection: &Rejection) {
        warn!(pod = %pod.display_name(), reason = %rejection.reason, message = %rejection.message, "pod rejected");
        self.recorder.warning(pod, rejection.reason.clone(), rejection.message.clone());
        let status = PodStatus {
            qos_class: Some(pod_qos(pod)),
            phase: Some(phase::FAILED.to_owned()),
            reason: Some(rejection.reason.to_string()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            ..PodStatus::default()
        };
        self.status_manager.set_pod_status(pod, status);
        self.mirror_pods.reconcile(pod);
    }
}

/// Counts pods that make room, by the first of what is missing, as upstream does.
fn count_preemptions(failures: &[PredicateFailure], victims: usize) {
    let missing = failures.iter().find_map(|failure| match failure {
        PredicateFailure::InsufficientResource { resource, .. } => Some(resource.as_str()),
        _ => None,
    });
    metrics::PREEMPTIONS.with_label_values(&[missing.unwrap_or_default()]).inc_by(victims as u64);
}

/// Stops a pod within its own grace period, or so many seconds, and says if that takes much longer (`killPodNow`).
pub(super) fn kill_pod_now(
    workers: &Arc<PodWorkers>,
    recorder: Recorder,
    pod: Arc<Pod>,
    grace_period_seconds: Option<i64>,
    status_fn: PodStatusFn,
) -> impl Future<Output = ()> + use<> {
    let (completed, done) = oneshot::channel();
    let kill = KillPodOptions {
        completed: Some(completed),
        evict: true,
        pod_status_fn: Some(status_fn),
        grace_period_seconds_override: grace_period_seconds,
    };
    let update = UpdatePodOptions::new(SyncPodType::Kill, pod.clone());
    workers.update_pod(UpdatePodOptions { kill: Some(kill), ..update });
    let own = pod.pod_spec().termination_grace_period_seconds.unwrap_or_default();
    let grace = grace_period_seconds.unwrap_or(own);
    let timeout = grace.saturating_add(grace / 2).max(MIN_KILL_TIMEOUT);
    async move {
        let timeout = Duration::from_secs(u64::try_from(timeout).unwrap_or_default());
        if tokio::time::timeout(timeout, done).await.is_err() {
            let message = "Container runtime did not kill the pod within specified grace period.";
            recorder.warning(&pod, reason::EXCEEDED_GRACE_PERIOD, message);
        }
    }
}
