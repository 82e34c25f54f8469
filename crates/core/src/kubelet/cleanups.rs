//! Housekeeping: makes workers, runtimes and desired pods agree (upstream: `HandlePodCleanups`).
//!
//! It reads the pod cache, so it costs no call to a runtime and never holds up the sync loop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use coracle_provider::PodRef;
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use super::Kubelet;
use crate::kuberuntime::RuntimePod;
use crate::pod::{PodExt, PodUid, phase};
use crate::pod_workers::{
    KillPodOptions, PodWorkerState, PodWorkerSync, Subject, SyncPodType, UpdatePodOptions,
};

impl Kubelet {
    pub(super) fn clean_up_pods(&self) {
        let desired = self.pod_manager.pods();
        let mut workers = self.pod_workers.sync_known_pods(&desired);
        let known: HashSet<PodUid> = desired.iter().map(|pod| pod.uid()).collect();
        self.probe_manager.cleanup_pods(|uid| {
            workers.get(uid).is_some_and(|worker| worker.state != PodWorkerState::Terminated)
        });
        // A static pod that ends shows how on its mirror, maybe on a new one: that goes on from what was shown before.
        let is_known = |uid: &PodUid| known.contains(uid) || workers.contains_key(uid);
        self.status_manager.remove_orphaned_statuses(is_known);
        self.startup.retain(&known);
        self.allocation_manager.retain(|uid| known.contains(uid));

        let in_runtime = self.pod_cache.all();
        let running: HashSet<&str> =
            in_runtime.iter().filter(|p| p.is_alive()).map(|p| p.uid.as_str()).collect();
        self.remove_orphaned_mirrors();
        self.restart_unknown_pods(&desired, &mut workers);
        self.finish_terminal_pods(&desired, &running, &workers);
        self.kill_orphans(&in_runtime, &workers);
        self.find_belated(&in_runtime, &known);
        self.end_wait_for_sources();
        self.collect_garbage(&in_runtime, &known);
    }

    /// A static pod that ends keeps its mirror until it has ended, so that the cluster sees how.
    fn remove_orphaned_mirrors(&self) {
        for mirror in self.pod_manager.orphaned_mirrors() {
            if !self.pod_workers.is_static_pod_terminating(&mirror.full_name()) {
                self.mirror_pods.remove_orphan(&mirror);
            }
        }
    }

    /// A desired pod without a worker was wanted again under a UID whose old life had to end first.
    fn restart_unknown_pods(&self, desired: &[Arc<Pod>], workers: &mut HashMap<PodUid, PodWorkerSync>) {
        for pod in desired {
            let uid = pod.uid();
            if workers.contains_key(&uid) || phase::is_terminal(pod.phase()) {
                continue;
            }
            self.status_manager.forget_finished(&uid);
            if self.was_rejected(pod) || self.pending_admissions.contains(&uid) {
                continue;
            }
            info!(pod = %pod.display_name(), "pod is desired and unknown to the pod workers, starting it");
            // Others may have got its place meanwhile.
            self.add_pod(pod.clone());
            // What runs of it is no orphan's.
            let started = PodWorkerSync { state: PodWorkerState::Sync, orphan: false, has_config: true };
            workers.insert(uid, started);
        }
    }

    /// A deleted pod that never started here (it was rejected) still has to be finished, or its API object stays.
    fn finish_terminal_pods(
        &self,
        desired: &[Arc<Pod>],
        running: &HashSet<&str>,
        workers: &HashMap<PodUid, PodWorkerSync>,
    ) {
        for pod in desired.iter().filter(|pod| pod.is_deleting()) {
            let uid = pod.uid();
            let ended = phase::is_terminal(pod.phase()) || self.status_manager.has_ended(&uid);
            if ended && !workers.contains_key(&uid) && !running.contains(&*uid) {
                self.pod_workers.update_pod(UpdatePodOptions::new(SyncPodType::Kill, pod.clone()));
            }
        }
    }

    /// Whatever runs and nobody knows is taken down.
    fn kill_orphans(&self, in_runtime: &[RuntimePod], workers: &HashMap<PodUid, PodWorkerSync>) {
        for pod in in_runtime.iter().filter(|p| p.is_alive() && !workers.contains_key(&p.uid)) {
            let Some(reference) = pod_reference(pod) else { continue };
            warn!(namespace = reference.namespace, name = reference.name, uid = %pod.uid, "terminating orphaned pod");
            self.pod_workers.update_pod(UpdatePodOptions {
                update_type: SyncPodType::Kill,
                subject: Subject::RunningPod(reference),
                kill: Some(KillPodOptions {
                    grace_period_seconds_override: Some(1),
                    ..KillPodOptions::default()
                }),
            });
        }
    }

    /// A call that an earlier agent made may come about only after its pod has ended: collectors stop what it made.
    fn find_belated(&self, in_runtime: &[RuntimePod], desired: &HashSet<PodUid>) {
        let has_ended = |uid: &PodUid| desired.contains(uid) && self.pod_workers.is_pod_known_terminated(uid);
        for pod in in_runtime.iter().filter(|pod| has_ended(&pod.uid)) {
            if pod.is_alive() || self.pod_cache.is_stale(&pod.uid) {
                let _ = self.garbage.send(pod.uid.clone());
            }
        }
    }

    /// What is left of pods that nobody wants goes at once; the collector does it, apart from the loop.
    fn collect_garbage(&self, in_runtime: &[RuntimePod], desired: &HashSet<PodUid>) {
        for pod in in_runtime.iter().filter(|p| !p.is_alive() && !desired.contains(&p.uid)) {
            if self.pod_workers.should_pod_content_be_removed(&pod.uid) {
                // Before collectors run, their first round finds the pod.
                let _ = self.garbage.send(pod.uid.clone());
            }
        }
    }
}

fn pod_reference(pod: &RuntimePod) -> Option<PodRef> {
    let sandbox = pod.sandboxes.first().map(|s| s.pod.clone());
    sandbox.or_else(|| pod.containers.first().map(|c| c.pod.clone()))
}
