//! What runs while the kubelet runs (upstream: `Kubelet.Run`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::pod_syncer::ORPHAN_GRACE_PERIOD_SECONDS;
use super::{Kubelet, PLEG_BUFFER};
use crate::config::PodUpdate;
use crate::image_gc::{ImageGcManager, ImageGcPolicy};
use crate::kuberuntime::{ContainerGc, RuntimePod};
use crate::logs::ContainerLogManager;
use crate::metrics;
use crate::pleg::{Pleg, PodLifecycleEvent};
use crate::pod::{PodExt, PodUid};
use crate::providers::{Providers, RegisteredProvider};
use crate::references::references;

/// How often dead containers are collected (`ContainerGCPeriod`).
const GC_PERIOD: Duration = Duration::from_secs(60);

impl Kubelet {
    /// Starts everything but the sync loop: status manager, mirror pods, probes, one PLEG a provider, notices of changed
    /// objects, log rotation. The tasks end when the set is dropped.
    pub(super) fn start_managers(self: &Arc<Self>) -> (JoinSet<()>, mpsc::Receiver<PodLifecycleEvent>) {
        metrics::register();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.status_manager.clone().run(self.clone()));
        tasks.spawn(self.mirror_pods.clone().run());
        tasks.spawn(self.probe_manager.clone().run());
        let (changed, pleg) = mpsc::channel(PLEG_BUFFER);
        for registered in self.providers.iter() {
            let (cache, state) = (self.pod_cache.clone(), self.runtime_state.clone());
            let notify = self.node_changed.clone();
            let generator = Pleg::new(registered.clone(), cache, state, changed.clone(), notify);
            tasks.spawn(generator.run());
        }
        tasks.spawn(self.clone().follow_objects());
        tasks.spawn(self.clone().run_cgroups());
        tasks.spawn(self.clone().run_eviction());
        let kubelet = self.clone();
        tasks.spawn(async move { kubelet.allocation_manager.run(&*kubelet).await });
        tasks.spawn(self.pod_workers.clone().run());
        if let Some(policy) = self.options.log_rotation {
            // One that hangs holds up nobody else's logs.
            for registered in self.providers.iter() {
                let own = Providers::new(vec![registered.clone()]);
                let logs = ContainerLogManager::new(own, self.pod_cache.clone(), policy);
                tasks.spawn(async move { logs.run().await });
            }
        }
        (tasks, pleg)
    }

    /// Runs until the sources are gone or this is dropped. Containers are left as they are.
    pub(super) async fn run_until_sources_end(self: &Arc<Self>, updates: mpsc::Receiver<PodUpdate>) {
        let (_managers, pleg) = self.start_managers();
        self.wait_for_first_relist().await;
        self.sync_loop(self.sync_channels(updates, pleg), &**self).await;
    }

    /// Gives the providers a moment to say what they have: what runs already is adopted, not started again. One that
    /// cannot answer holds up nobody else's pods.
    pub(super) async fn wait_for_first_relist(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let mut changed = self.node_changed();
        let all_synced = async {
            let is_ready = |name| self.runtime_state.runtime_error(name).is_none();
            while !self.providers.iter().all(|p| is_ready(p.provider.name())) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all_synced).await.is_err() {
            warn!(errors = ?self.runtime_state.errors(), "starting although not every provider is ready");
        }
    }

    /// A ConfigMap or Secret that changed concerns the pods that refer to it: they are looked at, and see it.
    async fn follow_objects(self: Arc<Self>) {
        let mut changes = self.objects.changes();
        loop {
            match changes.recv().await {
                Ok(key) => self.sync_pods_that_use(|pod| references(pod).contains(&key)),
                Err(broadcast::error::RecvError::Lagged(_)) => self.sync_pods_that_use(|_| true),
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    fn sync_pods_that_use(&self, uses: impl Fn(&Pod) -> bool) {
        for pod in self.pod_manager.pods().iter().filter(|pod| uses(pod)) {
            self.work_queue.enqueue(pod.uid(), Duration::ZERO);
        }
    }

    /// Removes dead containers and what is left of pods that are gone, now and then and when told
    /// (`StartGarbageCollection`). A provider that hangs holds up nobody else's.
    pub(super) async fn run_container_gc(&self) {
        let of_providers = self.providers.iter().map(|registered| self.run_container_gc_of(registered));
        tokio::join!(futures::future::join_all(of_providers), self.run_clean_up());
    }

    async fn run_container_gc_of(&self, registered: &RegisteredProvider) {
        let (gc, mut garbage) = (self.runtime.container_gc().of(registered), self.garbage.subscribe());
        let mut period = tokio::time::interval(GC_PERIOD);
        loop {
            tokio::select! {
                // What was missed, the next round finds.
                uid = garbage.recv() => if let Ok(uid) = uid {
                    self.collect_garbage_of_pod(&gc, &uid).await;
                },
                _ = period.tick() => {
                    if self.sources_ready.all_ready() {
                        gc.garbage_collect(|uid| self.pod_workers.should_pod_content_be_removed(uid)).await;
                    }
                }
            }
        }
    }

    async fn collect_garbage_of_pod(&self, gc: &ContainerGc, uid: &PodUid) {
        let has_ended = || !self.pod_workers.knows(uid) || self.pod_workers.is_pod_known_terminated(uid);
        if self.pod_cache.is_stale(uid)
            && has_ended()
            && let Err(error) = self.runtime.get_pod_status(uid).await
        {
            // Its worker will not list it any more; the next round tries again.
            return warn!(uid = &**uid, %error, "listing what is left of a pod failed");
        }
        let pod = self.pod_cache.get(uid);
        if self.pod_manager.get(uid).is_none() {
            if !pod.is_alive() && self.pod_workers.should_pod_content_be_removed(uid) {
                gc.garbage_collect_pod(&pod).await;
            }
        } else if pod.is_alive() && gc.has_any(&pod) && self.pod_workers.is_pod_known_terminated(uid) {
            self.stop_belated(&pod).await;
        } else {
            gc.delete_containers_in_pod(&pod).await;
        }
    }

    async fn stop_belated(&self, pod: &RuntimePod) {
        info!(uid = &*pod.uid, "stopping what a call made after its pod had ended");
        let result = self.runtime.kill_pod(None, pod, &[], Some(ORPHAN_GRACE_PERIOD_SECONDS)).await;
        if let Some(error) = result.error() {
            warn!(uid = &*pod.uid, %error, "stopping it failed");
        }
    }

    /// What no provider has: logs and folders of pods that are gone, and what is remembered of them.
    async fn run_clean_up(&self) {
        let mut period = tokio::time::interval(GC_PERIOD);
        loop {
            period.tick().await;
            if self.sources_ready.all_ready() {
                self.runtime.clean_up(|uid| self.pod_workers.should_pod_content_be_removed(uid)).await;
                self.clean_up_orphaned_pod_dirs().await;
                self.clean_up_orphaned_pod_cgroups().await;
            }
        }
    }

    /// Removes images that nobody uses.
    pub(super) async fn run_image_gc(&self) {
        if self.options.image_gc.is_some() {
            self.image_gc().run().await;
        }
    }

    /// Who removes images. Without a policy, only who needs their space does.
    pub(super) fn image_gc(&self) -> &ImageGcManager {
        self.image_gc.get_or_init(|| {
            let policy = self.options.image_gc.unwrap_or(ImageGcPolicy::ON_DEMAND);
            let (providers, cache) = (self.providers.clone(), self.pod_cache.clone());
            let (recorder, node) = (self.recorder.clone(), self.node_reference());
            let manager = ImageGcManager::new(providers, cache, recorder, node, policy);
            manager.with_pull_manager(self.options.images.pull_manager.clone())
        })
    }

    /// Folders of pods that are neither wanted nor alive (`cleanupOrphanedPodDirs`), and of those that were rejected after
    /// another agent had begun with them.
    async fn clean_up_orphaned_pod_dirs(&self) {
        let on_disk = match self.volumes.known_pods().await {
            Ok(uids) => uids,
            Err(error) => return warn!(%error, "listing pod folders failed"),
        };
        for uid in on_disk {
            let wanted = self.pod_manager.get(&uid).is_some_and(|pod| !self.is_pod_inactive(&pod))
                || self.pod_workers.could_have_running_containers(&uid);
            if wanted || self.pod_cache.get(&uid).is_alive() {
                continue;
            }
            if let Err(error) = self.volumes.unmount(&uid).await {
                warn!(uid, %error, "removing the folder of an orphaned pod failed");
            }
        }
    }
}
