//! Evicting pods when the node runs out of something (upstream: `synchronize` in `eviction_manager.go`).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::DiskStats;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::Kubelet;
use super::admit::kill_pod_now;
use super::local_storage::disk_empty_dirs;
use crate::blocking::blocking;
use crate::eviction::{
    ContainerFigures, FileSystems, Observations, PodFigures, Pressure, Resource, Signal, Threshold,
    evicted_status, eviction_message, grace_period, observe, rank,
};
use crate::metrics;
use crate::pod::{PodExt, PodUid};
use crate::pod_workers::PodStatusFn;
use crate::ports::EventType;
use crate::preemption::is_critical_pod;
use crate::recorder::reason;
use crate::stats::UsageScope;

/// How often the node is looked at (`evictionMonitoringPeriod` in `pkg/kubelet/kubelet.go`).
const PERIOD: Duration = Duration::from_secs(10);
/// How long to wait for what evicted pods had (`podCleanupTimeout`, `podCleanupPollFreq`).
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(30);
const CLEAN_UP_POLL: Duration = Duration::from_secs(1);
/// What a runtime gets to say where its images are.
const IMAGE_FS_TIMEOUT: Duration = Duration::from_secs(5);

impl Kubelet {
    /// What the Node says of what runs out.
    pub fn pressure(&self) -> Pressure {
        self.eviction.pressure()
    }

    /// Looks at the node and evicts pods, until dropped.
    pub(super) async fn run_eviction(self: Arc<Self>) {
        loop {
            // Pods have had no time to use anything up.
            sleep(PERIOD).await;
            let mut evicted = self.synchronize_eviction().await;
            while !evicted.is_empty() {
                self.wait_until_cleaned_up(&evicted).await;
                evicted = self.synchronize_eviction().await;
            }
        }
    }

    /// Answers the pods that were evicted: all that exceed their own limits, or one because the node runs out of something.
    async fn synchronize_eviction(&self) -> Vec<Arc<Pod>> {
        let seen = self.observe_node().await;
        let thresholds = match &seen {
            Some((observations, _)) => {
                let before = self.pressure();
                let thresholds = self.eviction.observe(observations, Instant::now());
                if self.pressure() != before {
                    self.node_changed.send_replace(());
                }
                thresholds
            }
            None => Vec::new(),
        };
        let disks = seen.as_ref().map(|(_, disks)| *disks).unwrap_or_default();
        let pods = self.active_pods();
        if self.eviction.config().local_storage {
            let evicted = self.evict_for_local_storage(&pods, disks.has_dedicated_image_fs).await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        match (thresholds.first(), &seen) {
            (Some(first), Some((observations, _))) => {
                self.reclaim_or_evict(first, &thresholds, observations, disks, pods).await
            }
            _ => Vec::new(),
        }
    }

    async fn reclaim_or_evict(
        &self,
        first: &Threshold,
        thresholds: &[Threshold],
        observations: &Observations,
        disks: FileSystems,
        mut pods: Vec<Arc<Pod>>,
    ) -> Vec<Arc<Pod>> {
        let (signal, resource) = (first.signal, first.signal.resource());
        info!(%signal, "attempting to reclaim {resource}");
        let message = format!("Attempting to reclaim {resource}");
        let reason = reason::EVICTION_THRESHOLD_MET;
        self.recorder.event(self.node_reference(), EventType::Warning, reason, message);
        if self.reclaim_node_level(signal, disks).await {
            info!(%signal, "reclaimed enough without evicting pods");
            return Vec::new();
        }
        if pods.is_empty() {
            error!(%signal, "eviction thresholds have been met, but no pods are active to evict");
            return Vec::new();
        }
        let figures = self.pod_figures(&pods).await;
        rank(&mut pods, signal, disks.has_dedicated_image_fs, |pod| figures.get(&pod.uid()));
        for pod in pods {
            if is_critical_pod(&pod) {
                error!(pod = %pod.display_name(), "cannot evict a critical pod");
                continue;
            }
            let grace = grace_period(first, &pod, self.eviction.config());
            let message = eviction_message(resource, &pod, figures.get(&pod.uid()), thresholds, observations);
            self.evict(&pod, grace, message, true).await;
            metrics::EVICTIONS.with_label_values(&[signal.as_str()]).inc();
            return vec![pod];
        }
        info!(%signal, "unable to evict any pods from the node");
        Vec::new()
    }

    /// Stops a pod for ever, and waits until it is.
    pub(super) fn evict(
        &self,
        pod: &Arc<Pod>,
        grace: i64,
        message: String,
        is_disrupted: bool,
    ) -> impl Future<Output = ()> + use<> {
        info!(pod = %pod.display_name(), message, "evicting pod");
        self.recorder.warning(pod, reason::EVICTED, message.clone());
        let evicted = pod.clone();
        let status_fn: PodStatusFn = Arc::new(move |status: &mut PodStatus| {
            evicted_status(&evicted, &message, is_disrupted, status);
        });
        kill_pod_now(&self.pod_workers, self.recorder.clone(), pod.clone(), Some(grace), status_fn)
    }

    /// What does not belong to pods goes before them: on the disk of images, and on a node that has only one disk, dead
    /// containers and unused images (`buildSignalToNodeReclaimFuncs`). Says whether that was enough.
    async fn reclaim_node_level(&self, signal: Signal, disks: FileSystems) -> bool {
        let is_of_images = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
        let is_of_disk = matches!(signal.resource(), Resource::EphemeralStorage | Resource::Inodes);
        if !is_of_disk || (disks.has_dedicated_image_fs && !is_of_images) {
            return false;
        }
        let may_go = |uid: &str| {
            self.pod_workers.should_pod_content_be_removed(uid)
                || self.pod_workers.should_pod_be_finished(uid)
        };
        if self.sources_ready.all_ready() {
            self.runtime.container_gc().garbage_collect(may_go).await;
        }
        self.image_gc().delete_unused_images().await;
        let seen = self.observe_node().await;
        seen.is_some_and(|(observations, _)| self.eviction.is_relieved(&observations))
    }

    /// Reads the signals; none without thresholds, or if the node cannot be read.
    async fn observe_node(&self) -> Option<(Observations, FileSystems)> {
        let source = self.node_usage.as_ref().filter(|_| !self.eviction.config().thresholds.is_empty())?;
        let usage =
            source.node_usage().inspect_err(|error| warn!(error, "the node's usage is not known")).ok()?;
        let mut disks = FileSystems::default();
        for mount in self.image_mounts().await {
            let source = source.clone();
            let look = move || source.file_system(&mount).map_err(io::Error::other);
            let Ok(found) = blocking(look).await else { continue };
            let is_dedicated = found.device != usage.root_fs.device;
            // A runtime on a disk of its own is the one to watch: the node's is watched anyway.
            if disks.images.is_none() || (is_dedicated && !disks.has_dedicated_image_fs) {
                disks = FileSystems { images: Some(found), has_dedicated_image_fs: is_dedicated };
            }
        }
        let pods = match &self.container_manager {
            Some(manager) => manager.memory_of_pods().await,
            None => None,
        };
        Some((observe(&usage, &disks, pods), disks))
    }

    /// Where runtimes keep images. That does not change: who has said it is not asked again.
    async fn image_mounts(&self) -> Vec<PathBuf> {
        for registered in self.providers.iter() {
            let name = registered.provider.name();
            if self.image_mounts.lock().contains_key(name) {
                continue;
            }
            if let Ok(Ok(found)) = timeout(IMAGE_FS_TIMEOUT, registered.provider.image_fs_info()).await {
                let mounts = found.into_iter().map(|usage| usage.mountpoint.into()).collect();
                self.image_mounts.lock().insert(name, mounts);
            }
        }
        let known = self.image_mounts.lock();
        // The provider of pods without a RuntimeClass comes first.
        self.providers.iter().filter_map(|p| known.get(p.provider.name())).flatten().cloned().collect()
    }

    /// What pods use. Those of which nothing runs are missing.
    pub(super) async fn pod_figures(&self, pods: &[Arc<Pod>]) -> HashMap<PodUid, PodFigures> {
        let usage = self.stats.list_pod_stats(UsageScope::Everything).await;
        let mut all = HashMap::new();
        for found in usage.pods {
            let uid = PodUid::from(found.pod.uid.as_str());
            let Some(pod) = pods.iter().find(|pod| pod.uid() == uid) else { continue };
            let containers = found.containers.into_iter().map(|container| ContainerFigures {
                name: container.stats.name,
                memory: container.stats.memory.working_set_bytes,
                rootfs: container.stats.writable_layer,
                logs: container.logs,
            });
            let containers = containers.collect();
            let processes = match &self.container_manager {
                Some(manager) => manager.processes_of(pod).await,
                None => 0,
            };
            all.insert(uid, PodFigures { containers, volumes: self.empty_dirs_usage(pod).await, processes });
        }
        all
    }

    async fn empty_dirs_usage(&self, pod: &Pod) -> DiskStats {
        let mut sum = DiskStats::default();
        for (volume, _) in disk_empty_dirs(pod) {
            match self.volumes.empty_dir_usage(&pod.uid(), volume).await {
                Ok(found) => {
                    sum.used_bytes = sum.used_bytes.saturating_add(found.used_bytes);
                    sum.inodes_used = sum.inodes_used.saturating_add(found.inodes_used);
                }
                Err(error) => warn!(pod = %pod.display_name(), volume, %error, "counting an emptyDir failed"),
            }
        }
        sum
    }

    /// Pods that have a place on the node (`GetActivePods`), as they are allocated.
    fn active_pods(&self) -> Vec<Arc<Pod>> {
        let pods = self.pod_manager.pods().into_iter();
        let pods =
            pods.filter(|pod| !self.is_pod_inactive(pod) && !self.pending_admissions.contains(&pod.uid()));
        pods.map(|pod| self.allocation_manager.allocated_pod(&pod)).collect()
    }

    async fn wait_until_cleaned_up(&self, evicted: &[Arc<Pod>]) {
        let cleaned_up = async {
            while !evicted.iter().all(|pod| self.pod_workers.should_pod_be_finished(&pod.uid())) {
                sleep(CLEAN_UP_POLL).await;
            }
        };
        sleep(CLEAN_UP_POLL).await;
        if timeout(CLEAN_UP_TIMEOUT, cleaned_up).await.is_err() {
            warn!(pods = evicted.len(), "timed out waiting for pods to be cleaned up");
        }
    }
}
