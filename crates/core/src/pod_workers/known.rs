//! Housekeeping of the workers: which of them are still wanted (`SyncKnownPods`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::debug;

use super::{Inner, PodWorkerState, PodWorkers};
use crate::pod::{PodExt, PodUid};

/// A worker, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodWorkerSync {
    /// What it does.
    pub state: PodWorkerState,
    /// Nobody wants its pod any more.
    pub orphan: bool,
    /// An object of its pod is known.
    pub has_config: bool,
}

impl PodWorkers {
    /// Drops the workers of pods that are finished and no longer desired, drives those that are not finished to their
    /// end, and answers which workers there are. A pod that was wanted again under its old UID is forgotten here, so
    /// that the caller can add it anew.
    pub fn sync_known_pods(&self, desired: &[Arc<Pod>]) -> HashMap<PodUid, PodWorkerSync> {
        let desired: HashSet<PodUid> = desired.iter().map(|pod| pod.uid()).collect();
        let mut inner = self.inner.lock();
        inner.pods_synced = true;
        let known: Vec<PodUid> = inner.statuses.keys().cloned().collect();
        let mut workers = HashMap::with_capacity(known.len());
        for uid in known {
            let orphan = !desired.contains(&uid);
            let restart = inner.statuses.get(&uid).is_some_and(|s| s.restart_requested);
            if (restart || orphan) && inner.remove_terminated_worker(&uid, orphan) {
                self.work_queue.remove(&uid);
                continue;
            }
            let Some(status) = inner.statuses.get(&uid) else { continue };
            let has_config = status.known_pod().is_some();
            workers.insert(uid, PodWorkerSync { state: status.work_type(), orphan, has_config });
        }
        workers
    }
}

impl Inner {
    /// Forgets a worker that is finished; makes one that is not finish. Says whether it is forgotten
    /// (`removeTerminatedWorker`).
    fn remove_terminated_worker(&mut self, uid: &PodUid, orphan: bool) -> bool {
        let Some(status) = self.statuses.get_mut(uid) else { return true };
        if !status.finished {
            if !orphan {
                // Its next attempt may have come up while nobody wanted the pod, and have come to nothing.
                if status.replay_last_update() {
                    self.wake(uid);
                }
                return false;
            }
            status.deleted = true;
            if status.started || status.observed_runtime {
                if !status.termination_requested {
                    debug!(%uid, "pod is orphaned and still running, terminating it");
                    status.termination_requested = true;
                    let pod = status.known_pod().cloned();
                    status.shrink_grace_period(pod.as_deref(), None);
                    status.cancel.cancel();
                }
                if status.replay_last_update() {
                    self.wake(uid);
                }
                return false;
            }
        }
        let full_name = status.full_name.clone();
        self.statuses.remove(uid);
        if let Some(worker) = self.running.remove(uid) {
            // Woken and not yet begun, it would take the work of the next worker of this UID.
            worker.task.abort();
        }
        self.release_static(&full_name, uid);
        true
    }
}
