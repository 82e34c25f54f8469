//! Pods that write more than they may (upstream: `localStorageEviction` in `pkg/kubelet/eviction/eviction_manager.go`).
//!
//! Empty directories in memory have a limit in the kernel. What is on disk is counted, of pods that have a limit only.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use tracing::warn;

use super::Kubelet;
use crate::eviction::{exceeded_limit, has_storage_limits};
use crate::metrics;
use crate::pod::{PodExt, phase};
use crate::preemption::is_critical_pod;
use crate::quantity::Quantity;

/// Seconds that the containers of such a pod have to end (`immediateEvictionGracePeriodSeconds`).
const GRACE_PERIOD: i64 = 1;

const EMPTY_DIR_SIGNAL: &str = "emptydirfs.limit";

impl Kubelet {
    /// Ends pods that have outgrown a limit, and answers them.
    pub(super) async fn evict_for_local_storage(
        &self,
        pods: &[Arc<Pod>],
        has_dedicated_image_fs: bool,
    ) -> Vec<Arc<Pod>> {
        let may_go = |pod: &&Arc<Pod>| !is_critical_pod(pod) && !self.has_ended(pod);
        let pods: Vec<Arc<Pod>> = pods.iter().filter(may_go).cloned().collect();
        let limited: Vec<Arc<Pod>> = pods.iter().filter(|pod| has_storage_limits(pod)).cloned().collect();
        let figures = match limited.is_empty() {
            true => Default::default(),
            false => self.pod_figures(&limited).await,
        };
        let (mut evicted, mut kills) = (Vec::new(), Vec::new());
        for pod in &pods {
            let exceeded = match self.outgrown(pod).await {
                Some(message) => Some((EMPTY_DIR_SIGNAL, message)),
                None => figures
                    .get(&pod.uid())
                    .and_then(|figures| exceeded_limit(pod, figures, has_dedicated_image_fs)),
            };
            if let Some((signal, message)) = exceeded {
                kills.push(self.evict(pod, GRACE_PERIOD, message, false));
                metrics::EVICTIONS.with_label_values(&[signal]).inc();
                evicted.push(pod.clone());
            }
        }
        join_all(kills).await;
        evicted
    }

    fn has_ended(&self, pod: &Pod) -> bool {
        let uid = pod.uid();
        phase::is_terminal(pod.phase())
            || self.status_manager.has_ended(&uid)
            || self.pod_workers.is_pod_termination_requested(&uid)
    }

    /// What is told of the first empty directory that is too large.
    async fn outgrown(&self, pod: &Pod) -> Option<String> {
        for (volume, limit, text) in limits(pod) {
            match self.volumes.empty_dir_usage(&pod.uid(), volume).await {
                Ok(found) if i128::from(found.used_bytes) > i128::from(limit) => {
                    return Some(format!("Usage of EmptyDir volume {volume:?} exceeds the limit {text:?}. "));
                }
                Ok(_) => {}
                Err(error) => warn!(pod = %pod.display_name(), volume, %error, "counting an emptyDir failed"),
            }
        }
        None
    }
}

/// The empty directories of a pod that are on disk.
pub(super) fn disk_empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    pod.pod_spec().volumes.iter().flatten().filter_map(|volume| {
        let empty_dir = volume.empty_dir.as_ref().filter(|e| e.medium.as_deref() != Some("Memory"))?;
        Some((volume.name.as_str(), empty_dir))
    })
}

/// The limits of a pod's empty directories on disk: volume, bytes, and as it is written.
fn limits(pod: &Pod) -> Vec<(&str, i64, &str)> {
    let limits = disk_empty_dirs(pod).filter_map(|(volume, empty_dir)| {
        let limit = empty_dir.size_limit.as_ref()?;
        let bytes = Quantity::try_from(limit).ok()?.value();
        (bytes > 0).then_some((volume, bytes, limit.0.as_str()))
    });
    limits.collect()
}
