//! Pods whose resources change while they run (upstream: the resize parts of `kubelet.go`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use crate::admission::{NotAdmitted, PodAdmitAttributes, Rejection};
use crate::allocation::{AllocationHost, ERROR, INFEASIBLE, ResizeMessage, check_resize, requirements_equal};
use crate::kuberuntime::{PodSyncResult, RuntimePod, SyncAction};
use crate::pod::{PodExt, phase};
use crate::pod_workers::SyncPodType;
use crate::recorder::reason;

impl AllocationHost for Kubelet {
    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pod_manager.get(uid)
    }

    fn sources_ready(&self) -> bool {
        self.sources_ready.all_ready()
    }

    fn can_resize(&self, pod: &Arc<Pod>, allocated: &Arc<Pod>) -> Result<(), Rejection> {
        let runtime = self.pod_cache.get(&pod.uid());
        let live_resize = |name| self.providers.by_name(name).map(|p| p.live_resize()).unwrap_or_default();
        check_resize(pod, allocated, &runtime, live_resize)
            .map_err(|message| Rejection { reason: INFEASIBLE.into(), message })?;
        let (others, node) = (self.admitted_pods(pod), self.objects.node());
        let attributes = PodAdmitAttributes { pod, other_pods: &others, node: node.as_deref(), runs: None };
        match self.admission.can_admit_pod(&attributes) {
            Ok(()) => Ok(()),
            Err(NotAdmitted::Rejected(rejection)) => Err(rejection),
            // Nobody has to go for a pod that wants more than it has.
            Err(NotAdmitted::DoesNotFit(failures)) => failures.first().map_or(Ok(()), |f| Err(f.into())),
        }
    }

    fn trigger_pod_sync(&self, pod: &Arc<Pod>) {
        self.update_worker(pod.clone(), SyncPodType::Sync);
    }
}

impl Kubelet {
    /// Starts a pod that was admitted: with what was allocated to it before, else with what it asks for.
    pub(super) fn start_admitted(&self, pod: Arc<Pod>) {
        let manager = &self.allocation_manager;
        if let Err(error) = manager.set_allocated_resources(&manager.allocated_pod(&pod)) {
            tracing::error!(pod = %pod.display_name(), %error, "writing down what a pod was given failed");
        }
        manager.conditions().backfill(&pod);
        self.update_worker(pod.clone(), SyncPodType::Create);
        if !self.queue_resize(&pod) {
            // It was given what it waited for, and the last agent could not tell.
            manager.conditions().clear_pending(&pod.uid());
        }
    }

    /// The object of a pod changed from `old`.
    pub(super) fn handle_resize(&self, old: Option<&Pod>, pod: &Arc<Pod>) {
        if old.is_some_and(|old| same_resources(old, pod)) {
            return;
        }
        if !self.queue_resize(pod) {
            // It may have wanted something before and thought better of it.
            self.allocation_manager.conditions().clear_pending(&pod.uid());
        }
    }

    /// Queues a resize and looks at all that wait, if the pod wants something else than it has. Says whether it does.
    fn queue_resize(&self, pod: &Arc<Pod>) -> bool {
        let wants = self.allocation_manager.update_pod_from_allocation(pod).is_some();
        if wants {
            self.allocation_manager.push_pending_resize(&pod.uid(), self);
            self.allocation_manager.retry_pending_resizes(self);
        }
        wants
    }

    /// Room may have become free.
    pub(super) fn retry_pending_resizes(&self) {
        if self.allocation_manager.has_pending_resizes() {
            self.allocation_manager.retry_pending_resizes(self);
        }
    }

    /// What the API shows of a pod has changed from `old`: one that ended there has no resources any more.
    pub(super) fn handle_resize_of_others(&self, old: Option<&Pod>, pod: &Pod) {
        let ended = |pod: &Pod| phase::is_terminal(pod.phase());
        if ended(pod) && old.is_some_and(|old| !ended(old)) {
            self.retry_pending_resizes();
        }
    }

    /// Brings the condition PodResizeInProgress to what the runtime has.
    pub(super) fn update_resize_in_progress(&self, pod: &Pod, runtime: &RuntimePod) {
        let conditions = self.allocation_manager.conditions();
        if self.runtime.is_pod_resize_in_progress(pod, runtime) {
            conditions.set_in_progress(&pod.uid(), None, pod.metadata.generation);
        } else if let Some(generation) = conditions.clear_in_progress(&pod.uid()) {
            let message = ResizeMessage::Completed.format(pod, generation);
            self.recorder.normal(pod, reason::RESIZE_COMPLETED, message);
            self.retry_pending_resizes();
        }
    }

    /// The condition says what a resize has failed with.
    pub(super) fn note_resize_failure(&self, pod: &Pod, result: &PodSyncResult) {
        let resizes = result.steps.iter().filter(|step| step.action == SyncAction::ResizePodInPlace);
        for failure in resizes.filter_map(|step| step.failure.as_ref()) {
            let message = failure.message.as_str();
            let conditions = self.allocation_manager.conditions();
            let (generation, is_new) =
                conditions.set_in_progress(&pod.uid(), Some((ERROR, message)), pod.metadata.generation);
            if is_new {
                let message = ResizeMessage::Error(message).format(pod, generation);
                self.recorder.warning(pod, reason::RESIZE_ERROR, message);
            }
        }
    }
}

/// Whether two versions of a pod ask for the same.
fn same_resources(a: &Pod, b: &Pod) -> bool {
    let containers = |pod: &Pod| {
        let all = pod.init_containers().iter().chain(pod.containers());
        all.map(|c| (c.name.clone(), c.resources.clone())).collect::<Vec<_>>()
    };
    let (old, new) = (containers(a), containers(b));
    let same = |((old_name, old), (new_name, new)): (&(String, _), &(String, _))| {
        old_name == new_name && requirements_equal(Option::as_ref(old), Option::as_ref(new))
    };
    requirements_equal(a.pod_spec().resources.as_ref(), b.pod_spec().resources.as_ref())
        && old.len() == new.len()
        && old.iter().zip(&new).all(same)
}
