//! Empty directories that outgrow their `sizeLimit` (upstream: `emptyDirLimitEviction` in
//! `pkg/kubelet/eviction/eviction_manager.go`).
//!
//! Those in memory have a limit in the kernel. Those on disk are counted, those of pods that set a limit only; between two
//! looks a pod can write more than it may.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::Kubelet;
use super::admit::kill_pod_now;
use crate::pod::{PodExt, phase};
use crate::pod_workers::PodStatusFn;
use crate::preemption::is_critical_pod;
use crate::quantity::Quantity;
use crate::recorder::reason;

/// How often they are counted (`evictionMonitoringPeriod` in `pkg/kubelet/kubelet.go`).
const PERIOD: Duration = Duration::from_secs(10);
/// Seconds that the containers of such a pod have to end (`immediateEvictionGracePeriodSeconds`).
const GRACE_PERIOD: i64 = 1;

impl Kubelet {
    /// Ends pods of which an empty directory has outgrown its limit, for ever.
    pub(super) async fn enforce_empty_dir_limits(self: Arc<Self>) {
        let mut kills = JoinSet::new();
        loop {
            tokio::time::sleep(PERIOD).await;
            while kills.try_join_next().is_some() {}
            for pod in self.pod_manager.pods() {
                if self.has_ended(&pod) {
                    continue;
                }
                if let Some(message) = self.outgrown(&pod).await {
                    kills.spawn(self.evict(&pod, message));
                }
            }
        }
    }

    fn has_ended(&self, pod: &Pod) -> bool {
        let uid = pod.uid();
        phase::is_terminal(pod.phase())
            || self.status_manager.has_ended(&uid)
            || self.pod_workers.is_pod_termination_requested(&uid)
    }

    /// What is told of the first directory that is too large.
    async fn outgrown(&self, pod: &Pod) -> Option<String> {
        for (volume, limit, text) in limits(pod) {
            match self.volumes.empty_dir_usage(&pod.uid(), volume).await {
                Ok(bytes) if i128::from(bytes) > i128::from(limit) => {
                    return Some(format!("Usage of EmptyDir volume {volume:?} exceeds the limit {text:?}. "));
                }
                Ok(_) => {}
                Err(error) => warn!(pod = %pod.display_name(), volume, %error, "counting an emptyDir failed"),
            }
        }
        None
    }

    fn evict(&self, pod: &Arc<Pod>, message: String) -> impl Future<Output = ()> + use<> {
        info!(pod = %pod.display_name(), message, "evicting pod");
        self.recorder.warning(pod, reason::EVICTED, message.clone());
        let status_fn: PodStatusFn = Arc::new(move |status: &mut PodStatus| {
            status.phase = Some(phase::FAILED.to_owned());
            status.reason = Some(reason::EVICTED.to_owned());
            status.message = Some(message.clone());
        });
        let (workers, recorder) = (&self.pod_workers, self.recorder.clone());
        kill_pod_now(workers, recorder, pod.clone(), Some(GRACE_PERIOD), status_fn)
    }
}

/// The limits of a pod's empty directories on disk: volume, bytes, and as it is written. A critical pod has none.
fn limits(pod: &Pod) -> Vec<(&str, i64, &str)> {
    let volumes = pod.pod_spec().volumes.iter().flatten().filter(|_| !is_critical_pod(pod));
    let limits = volumes.filter_map(|volume| {
        let empty_dir = volume.empty_dir.as_ref().filter(|e| e.medium.as_deref() != Some("Memory"))?;
        let limit = empty_dir.size_limit.as_ref()?;
        let bytes = Quantity::try_from(limit).ok()?.value();
        (bytes > 0).then_some((volume.name.as_str(), bytes, limit.0.as_str()))
    });
    limits.collect()
}
