//! Why containers of a pod could not be started, until they can (upstream: `pkg/kubelet/reason_cache.go`).

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::kuberuntime::{PodSyncResult, SyncAction};
use crate::pod::PodUid;

/// A reason, as a container's waiting state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// One word: `ErrImagePull`, `CrashLoopBackOff`, …
    pub reason: &'static str,
    /// One line.
    pub message: String,
}

/// The reasons, by pod and container.
#[derive(Debug, Default)]
pub struct ReasonCache {
    failures: Mutex<HashMap<PodUid, HashMap<String, StartFailure>>>,
}

impl ReasonCache {
    /// Takes the outcome of a sync in.
    pub fn update(&self, uid: &PodUid, result: &PodSyncResult) {
        let mut failures = self.failures.lock();
        for step in result.steps.iter().filter(|s| s.action == SyncAction::StartContainer) {
            match &step.failure {
                Some(failure) => {
                    let failure = StartFailure { reason: failure.reason, message: failure.message.clone() };
                    failures.entry(uid.clone()).or_default().insert(step.target.clone(), failure);
                }
                None => {
                    if let Some(of_pod) = failures.get_mut(uid) {
                        of_pod.remove(&step.target);
                    }
                }
            }
        }
    }

    /// Why this container could not be started.
    pub fn get(&self, uid: &str, container: &str) -> Option<StartFailure> {
        self.failures.lock().get(uid)?.get(container).cloned()
    }

    /// Of which pods something is kept.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        self.failures.lock().keys().cloned().collect()
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.failures.lock().remove(uid);
    }
}
