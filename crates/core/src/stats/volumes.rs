//! What volumes take (upstream: `server/stats/fs_resource_analyzer.go`, `volume_stat_calculator.go`). Upstream measures all
//! volumes once a minute; here they are measured when somebody asks, and not again within that time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::PodUsage;
use crate::ports::{VolumeUsage, Volumes};

/// Pods whose volumes are measured at a time: each takes a thread.
const MAX_CONCURRENT_PODS: usize = 4;

/// Measures the volumes of pods.
pub struct VolumeStats {
    volumes: Arc<dyn Volumes>,
    period: Duration,
    /// By the UID of the pod.
    measured: Mutex<HashMap<String, (Instant, Vec<VolumeUsage>)>>,
}

impl VolumeStats {
    /// Volumes that were measured are not measured again within the period (`volumeStatsAggPeriod`).
    pub fn new(volumes: Arc<dyn Volumes>, period: Duration) -> Self {
        Self { volumes, period, measured: Mutex::default() }
    }

    /// Adds what the volumes of these pods take, and forgets all other pods.
    pub async fn add_to(&self, pods: &mut [PodUsage], find: impl Fn(&str) -> Option<Arc<Pod>>) {
        {
            let known: HashSet<&str> = pods.iter().map(|pod| pod.pod.uid.as_str()).collect();
            self.measured.lock().retain(|uid, _| known.contains(uid.as_str()));
        }
        let find = &find;
        let measured =
            futures::stream::iter(pods).for_each_concurrent(MAX_CONCURRENT_PODS, |pod| async move {
                if let Some(spec) = find(&pod.pod.uid) {
                    pod.volumes = self.of(&pod.pod.uid, &spec).await;
                }
            });
        measured.await;
    }

    async fn of(&self, uid: &str, pod: &Pod) -> Vec<VolumeUsage> {
        let recent = self.measured.lock().get(uid).filter(|(at, _)| at.elapsed() < self.period).cloned();
        if let Some((_, volumes)) = recent {
            return volumes;
        }
        let volumes = self.volumes.usage(pod).await;
        self.measured.lock().insert(uid.to_owned(), (Instant::now(), volumes.clone()));
        volumes
    }
}
