//! The work of the pod workers (upstream: `Kubelet.SyncPod`, `SyncTerminatingPod`, `SyncTerminatedPod`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::{ContainerState, PodRef};
use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use crate::kuberuntime::{RuntimePod, is_restarting_all_containers};
use crate::pod::{PodExt, PodUid};
use crate::pod_cache::ProviderName;
use crate::pod_workers::{PodStatusFn, PodSyncer, SyncError, SyncPodType};
use crate::recorder::reason;

/// What orphans get to stop in: nobody waits for them (`SyncTerminatingRuntimePod`).
pub(super) const ORPHAN_GRACE_PERIOD_SECONDS: i64 = 1;

#[async_trait]
impl PodSyncer for Kubelet {
    async fn runtime_pod(&self, pod: &Pod) -> Result<RuntimePod, SyncError> {
        let runtime = self.runtime.get_pod_status(&pod.uid()).await;
        runtime.inspect_err(|error| {
            self.recorder.warning(pod, reason::FAILED_SYNC, format!("error determining status: {error}"));
        })
    }

    async fn sync_pod(&self, update_type: SyncPodType, pod: &Arc<Pod>) -> Result<bool, SyncError> {
        let pod = &self.allocation_manager.allocated_pod(pod);
        if update_type == SyncPodType::Create {
            self.startup.worker_started(pod);
        }
        let provider = self.check_runtime(pod).await?;
        // Only now: before its provider has been listed it would look as if the pod had lost what it has, and asking for
        // the RuntimeClass takes its time.
        let runtime = self.runtime_pod(pod).await?;
        self.runtime.initialize_actuated_pod(pod);
        self.update_resize_in_progress(pod, &runtime);
        // One that has ended has a mirror, too: it says how.
        self.mirror_pods.reconcile(pod);
        if self.refresh_status(pod, &runtime, false).await {
            return Ok(true);
        }
        self.active_deadlines.schedule(pod);
        self.check_network(pod, provider)?;
        self.objects.register_pod(pod);
        let runtime = self.ensure_pod_cgroup(pod, provider, runtime).await?;
        self.probe_manager.add_pod(pod);
        let status = self.status_manager.get_pod_status(&pod.uid());
        let restarts_all = status.as_deref().is_some_and(is_restarting_all_containers);
        let result = self.runtime.sync_pod(pod, &runtime, restarts_all).await;
        self.reason_cache.update(&pod.uid(), &result);
        self.note_resize_failure(pod, &result);
        let mut ended = false;
        if !result.steps.is_empty() {
            self.update_resize_in_progress(pod, &self.pod_cache.get(&pod.uid()));
            // Every step has written the cache: what it came to is told without waiting for an event. Containers that
            // were stopped for their health, and are not to run again, end the pod.
            ended = self.refresh_status(pod, &self.pod_cache.get(&pod.uid()), false).await;
        }
        if restarts_all
            && !result.failed()
            && let Some(newest) = self.pod_manager.get(&pod.uid())
        {
            // Everything is gone: it starts anew at once.
            self.update_worker(newest, SyncPodType::Sync);
        }
        result.error().map_or(Ok(ended), Err)
    }

    async fn sync_terminating_pod(
        &self,
        pod: &Arc<Pod>,
        runtime: RuntimePod,
        grace_period_seconds: Option<i64>,
        pod_status_fn: Option<PodStatusFn>,
    ) -> Result<(), SyncError> {
        let pod = &self.allocation_manager.allocated_pod(pod);
        self.active_deadlines.forget(&pod.uid());
        let mut status = self.generate_api_pod_status(pod, &runtime, false).await;
        if let Some(change) = &pod_status_fn {
            change(&mut status);
        }
        self.set_pod_status(pod, status);
        self.probe_manager.stop_liveness_and_startup(&pod.uid());

        self.check_listed(pod).await?;
        // It may have been listed only since this sync began.
        let runtime = self.runtime.get_pod_status(&pod.uid()).await?;
        let result = self.runtime.kill_pod(Some(pod), &runtime, &[], grace_period_seconds).await;
        if let Some(error) = result.error() {
            self.recorder.warning(pod, reason::FAILED_KILL_POD, format!("error killing pod: {error}"));
            return Err(error);
        }
        self.probe_manager.remove_pod(&pod.uid());
        let stopped = self.verify_stopped(&pod.uid()).await?;
        self.refresh_status(pod, &stopped, true).await;
        Ok(())
    }

    async fn sync_terminating_runtime_pod(&self, pod: &PodRef) -> Result<(), SyncError> {
        let uid = PodUid::from(pod.uid.as_str());
        let runtime = self.runtime.get_pod_status(&uid).await?;
        let result = self.runtime.kill_pod(None, &runtime, &[], Some(ORPHAN_GRACE_PERIOD_SECONDS)).await;
        result.error().map_or(Ok(()), Err)?;
        self.runtime.forget(&uid);
        Ok(())
    }

    async fn sync_terminated_pod(&self, pod: &Arc<Pod>, runtime: RuntimePod) -> Result<(), SyncError> {
        let pod = &self.allocation_manager.allocated_pod(pod);
        let uid = pod.uid();
        self.retry_pending_resizes();
        self.refresh_status(pod, &runtime, true).await;
        self.volumes
            .unmount(&uid)
            .await
            .map_err(|e| SyncError::failed(format!("unmounting volumes: {e}")))?;
        self.remove_pod_cgroup(pod).await?;
        self.objects.unregister_pod(pod);
        self.reason_cache.remove(&uid);
        self.runtime.forget(&uid);
        self.status_manager.terminate_pod(pod);
        Ok(())
    }

    fn sync_abandoned(&self, uid: &PodUid) {
        self.runtime.distrust(uid);
    }
}

impl Kubelet {
    /// The provider of a pod, if it can be worked with: a dead one stops its own pods only. None if nobody knows it (no
    /// such RuntimeClass); making the sandbox tells that to the user.
    async fn check_runtime(&self, pod: &Pod) -> Result<Option<ProviderName>, SyncError> {
        let Ok((provider, _)) = self.runtime.provider_for(pod).await else {
            // Before all have been listed it would look as if everything of the pod were lost.
            return self.check_listed(pod).await.map(|()| None);
        };
        let name = provider.name();
        match self.runtime_state.runtime_error(name) {
            Some(error) => Err(SyncError::failed(format!("container runtime is not ready: {error}"))),
            None => Ok(Some(name)),
        }
    }

    /// Whether the provider has a network for the pod; one on the node's network needs none.
    fn check_network(&self, pod: &Pod, provider: Option<ProviderName>) -> Result<(), SyncError> {
        let error = provider.and_then(|name| self.runtime_state.network_error(name));
        let Some(error) = error.filter(|_| !pod.is_host_network()) else { return Ok(()) };
        self.recorder.warning(pod, reason::NETWORK_NOT_READY, format!("network is not ready: {error}"));
        Err(SyncError::NetworkNotReady(error))
    }

    /// Whether it is known what there is of a pod: of a provider that has not been listed since the start, nothing is.
    async fn check_listed(&self, pod: &Pod) -> Result<(), SyncError> {
        let own = self.runtime.provider_for(pod).await.map(|(provider, _)| provider.name()).ok();
        let mut candidates = self.providers.iter().map(|p| p.provider.name());
        match candidates.find(|name| own.is_none_or(|own| own == *name) && !self.pod_cache.is_synced(name)) {
            Some(name) => Err(SyncError::failed(format!("{name} has not said yet what it runs"))),
            None => Ok(()),
        }
    }

    /// Makes sure that nothing of a pod runs, whatever the calls said.
    async fn verify_stopped(&self, uid: &PodUid) -> Result<RuntimePod, SyncError> {
        let stopped = self.runtime.get_pod_status(uid).await?;
        let running: Vec<&str> = stopped
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running)
            .map(|c| c.id.as_str())
            .collect();
        if !running.is_empty() {
            // Between two looks something may have started that nobody knew of; it is listed and killed next time.
            self.runtime.distrust(uid);
            let message = format!("containers run after the pod was killed: {}", running.join(", "));
            return Err(SyncError::failed(message));
        }
        Ok(stopped)
    }
}
