//! What the sync loop calls when something happened to pods (upstream: the `HandlePod…` methods of `Kubelet`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use crate::pod::PodExt;
use crate::pod_workers::{SyncPodType, UpdatePodOptions};
use crate::status::needs_to_reconcile_readiness;

/// Reacts to changes. None of the methods waits for anything: they run on the sync loop itself.
pub trait SyncHandler: Send + Sync {
    /// Pods are new.
    fn handle_pod_additions(&self, pods: Vec<Arc<Pod>>);
    /// Pods changed, or are to end.
    fn handle_pod_updates(&self, pods: Vec<Arc<Pod>>);
    /// Pods are gone from their source.
    fn handle_pod_removes(&self, pods: Vec<Arc<Pod>>);
    /// The status of pods changed in their source.
    fn handle_pod_reconcile(&self, pods: Vec<Arc<Pod>>);
    /// Pods should be looked at.
    fn handle_pod_syncs(&self, pods: Vec<Arc<Pod>>);
    /// Time to clean up.
    fn handle_pod_cleanups(&self);
}

impl SyncHandler for Kubelet {
    fn handle_pod_additions(&self, mut pods: Vec<Arc<Pod>>) {
        // After a restart, pods that have their place keep it, whoever was created before them.
        pods.sort_by_cached_key(|pod| {
            (!self.was_admitted_before(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        });
        for pod in pods {
            self.pod_manager.upsert(pod.clone());
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
                continue;
            }
            self.startup.pod_added(&pod);
            self.add_pod(pod);
        }
    }

    fn handle_pod_updates(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            let old = self.pod_manager.get(&pod.uid());
            self.pod_manager.upsert(pod.clone());
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
                continue;
            }
            self.startup.observed_on_watch(&pod);
            self.status_manager.pod_updated(&pod);
            if pod.is_deleting() {
                self.end_admission(&pod.uid());
            }
            self.handle_resize(old.as_deref(), &pod);
            self.update_worker(pod, SyncPodType::Update);
        }
    }

    fn handle_pod_removes(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            self.pod_manager.remove(&pod);
            self.end_admission(&pod.uid());
            self.allocation_manager.remove_pod(&pod.uid());
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
            } else if self.sources_ready.all_ready() {
                // Before that, another source may still want it.
                self.update_worker(pod, SyncPodType::Kill);
            }
        }
        self.retry_pending_resizes();
    }

    fn handle_pod_reconcile(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            let old = self.pod_manager.get(&pod.uid());
            self.pod_manager.upsert(pod.clone());
            self.handle_resize_of_others(old.as_deref(), &pod);
            self.startup.observed_on_watch(&pod);
            self.status_manager.pod_updated(&pod);
            if !pod.is_mirror() && needs_to_reconcile_readiness(&pod) {
                self.update_worker(pod, SyncPodType::Sync);
            }
        }
    }

    fn handle_pod_syncs(&self, pods: Vec<Arc<Pod>>) {
        self.continue_admissions();
        for pod in pods.into_iter().filter(|pod| !pod.is_mirror()) {
            self.update_worker(pod, SyncPodType::Sync);
        }
    }

    fn handle_pod_cleanups(&self) {
        self.clean_up_pods();
    }
}

impl Kubelet {
    /// Tells a pod's worker; one that has yet to be admitted has none.
    pub(super) fn update_worker(&self, pod: Arc<Pod>, update_type: SyncPodType) {
        if self.pending_admissions.contains(&pod.uid()) {
            return;
        }
        let changes_nothing = matches!(update_type, SyncPodType::Update | SyncPodType::Sync);
        if changes_nothing && !pod.is_deleting() && self.was_rejected(&pod) {
            return;
        }
        self.pod_workers.update_pod(UpdatePodOptions::new(update_type, pod));
    }

    /// The API object of a static pod came, changed or went. It never runs, and the pod runs whatever becomes of it.
    fn handle_mirror_pod(&self, mirror: &Arc<Pod>) {
        if let Some(pod) = self.pod_manager.pod_of_mirror(mirror) {
            self.status_manager.pod_updated(mirror);
            self.mirror_pods.reconcile(&pod);
        }
    }
}
