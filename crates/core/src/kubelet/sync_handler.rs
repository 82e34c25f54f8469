//! What the sync loop calls when something happened to pods (upstream: the `HandlePod…` methods of `Kubelet`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::Kubelet;
use crate::admission::{Rejection, is_active};
use crate::pod::{PodExt, phase};
use crate::pod_workers::{SyncPodType, UpdatePodOptions};
use crate::qos::pod_qos;

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
        pods.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        for pod in pods {
            self.pod_manager.upsert(pod.clone());
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
                continue;
            }
            let ends = self.pod_workers.is_pod_termination_requested(&pod.uid()) || pod.is_deleting();
            if !ends
                && !phase::is_terminal(pod.phase())
                && let Err(rejection) = self.can_admit_pod(&pod)
            {
                self.reject_pod(&pod, &rejection);
                continue;
            }
            self.update_worker(pod, SyncPodType::Create);
        }
    }

    fn handle_pod_updates(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            self.pod_manager.upsert(pod.clone());
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
                continue;
            }
            self.status_manager.pod_updated(&pod);
            self.update_worker(pod, SyncPodType::Update);
        }
    }

    fn handle_pod_removes(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            self.pod_manager.remove(&pod);
            if pod.is_mirror() {
                self.handle_mirror_pod(&pod);
            } else if self.sources_ready.all_ready() {
                // Before that, another source may still want it.
                self.update_worker(pod, SyncPodType::Kill);
            }
        }
    }

    fn handle_pod_reconcile(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            self.pod_manager.upsert(pod.clone());
            self.status_manager.pod_updated(&pod);
            if needs_to_reconcile_readiness(&pod) {
                self.update_worker(pod, SyncPodType::Sync);
            }
        }
    }

    fn handle_pod_syncs(&self, pods: Vec<Arc<Pod>>) {
        for pod in pods.into_iter().filter(|pod| !pod.is_mirror()) {
            self.update_worker(pod, SyncPodType::Sync);
        }
    }

    fn handle_pod_cleanups(&self) {
        self.clean_up_pods();
    }
}

impl Kubelet {
    fn update_worker(&self, pod: Arc<Pod>, update_type: SyncPodType) {
        let mirror_pod = self.pod_manager.mirror_of(&pod);
        self.pod_workers
            .update_pod(UpdatePodOptions { mirror_pod, ..UpdatePodOptions::new(update_type, pod) });
    }

    /// The API object of a static pod changed: its worker hears of it.
    fn handle_mirror_pod(&self, mirror: &Pod) {
        if let Some(pod) = self.pod_manager.pod_of_mirror(mirror) {
            self.update_worker(pod, SyncPodType::Update);
        }
    }

    fn can_admit_pod(&self, pod: &Pod) -> Result<(), Rejection> {
        let active = |other: &Arc<Pod>| {
            let uid = other.uid();
            uid != pod.uid() && is_active(other, self.pod_workers.is_pod_known_terminated(&uid))
        };
        let active_pods = self.pod_manager.pods().iter().filter(|p| active(p)).count();
        self.admission.can_admit_pod(active_pods, pod)
    }

    /// The pod fails here and now, and says why (`rejectPod`).
    fn reject_pod(&self, pod: &Arc<Pod>, rejection: &Rejection) {
        tracing::warn!(pod = %pod.display_name(), reason = rejection.reason, message = %rejection.message, "pod rejected");
        self.recorder.warning(pod, rejection.reason, rejection.message.clone());
        let status = PodStatus {
            qos_class: Some(pod_qos(pod)),
            phase: Some(phase::FAILED.to_owned()),
            reason: Some(rejection.reason.to_owned()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            ..PodStatus::default()
        };
        self.status_manager.set_pod_status(pod, status);
    }
}

/// Whether a readiness gate changed that the Ready condition does not show yet (`NeedToReconcilePodReadiness`).
fn needs_to_reconcile_readiness(pod: &Pod) -> bool {
    let gates = pod.pod_spec().readiness_gates.as_deref().unwrap_or_default();
    if gates.is_empty() {
        return false;
    }
    let conditions = pod.pod_status().conditions.as_deref().unwrap_or_default();
    let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    let wanted = holds("ContainersReady") && gates.iter().all(|gate| holds(&gate.condition_type));
    wanted != holds("Ready")
}
