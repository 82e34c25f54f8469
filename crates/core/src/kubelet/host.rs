//! What the kubelet's own API sees (upstream: `kubelet_getters.go`, `GetKubeletContainerLogs`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use crate::host::{
    ContainerLog, HostInterface, LogError, SyncLoopStuck, check_sync_loop, validate_container_log_status,
};
use crate::pod::{PodExt, PodUid};
use crate::pod_cache::PodCache;

#[async_trait]
impl HostInterface for Kubelet {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let pods = self.pod_manager.pods().into_iter().map(|pod| self.allocation_manager.allocated_pod(&pod));
        pods.map(|pod| self.with_newest_status(pod)).collect()
    }

    fn pod_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pod_manager.get_by_name(namespace, name).map(|pod| self.with_newest_status(pod))
    }

    async fn container_log(
        &self,
        namespace: &str,
        pod_name: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerLog, LogError> {
        let pod = self.pod_by_name(namespace, pod_name);
        let pod = pod.ok_or_else(|| LogError::PodNotFound { pod: pod_name.to_owned() })?;
        let id = validate_container_log_status(pod_name, pod.pod_status(), container, previous)?;
        let runtime = self.pod_cache.get(&pod.uid());
        let found = runtime.containers.iter().find(|c| c.container_id() == id);
        let Some(found) = found else { return Err(LogError::Runtime { container_id: id }) };
        let ended = container_ended(self.pod_cache.clone(), pod.uid(), found.id.clone());
        Ok(ContainerLog { path: found.log_path.clone(), ended: Box::pin(ended) })
    }

    fn sync_loop_health_check(&self) -> Result<(), SyncLoopStuck> {
        check_sync_loop(*self.sync_loop_entered.lock(), self.resync_interval())
    }
}

impl Kubelet {
    fn with_newest_status(&self, pod: Arc<Pod>) -> Arc<Pod> {
        match self.status_manager.get_pod_status(&pod.uid()) {
            Some(status) => Arc::new(Pod { status: Some((*status).clone()), ..(*pod).clone() }),
            None => pod,
        }
    }
}

/// Resolves when a container no longer runs.
async fn container_ended(cache: Arc<PodCache>, uid: PodUid, id: String) {
    let mut changes = cache.changes();
    loop {
        let pod = cache.get(&uid);
        if !pod.containers.iter().any(|c| c.id == id && c.state == ContainerState::Running) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
