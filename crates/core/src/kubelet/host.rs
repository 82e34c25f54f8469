//! What the kubelet's own API sees (upstream: `kubelet_getters.go`, `GetKubeletContainerLogs`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::{ContainerState, FsUsage};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Kubelet;
use crate::host::{
    ContainerLog, Counts, HostInterface, LogError, SyncLoopStuck, check_sync_loop,
    validate_container_log_status,
};
use crate::kuberuntime::{RuntimeContainer, RuntimePod};
use crate::pod::{PodExt, PodUid, phase};
use crate::pod_cache::PodCache;
use crate::stats::{PodsUsage, UsageScope};

#[async_trait]
impl HostInterface for Kubelet {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let pods = self.pod_manager.pods().into_iter().map(|pod| self.allocation_manager.allocated_pod(&pod));
        pods.map(|pod| self.with_newest_status(pod)).collect()
    }

    fn active_pods(&self) -> Vec<Arc<Pod>> {
        self.pods().into_iter().filter(|pod| !self.is_pod_inactive(pod)).collect()
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

    fn running_pods(&self) -> Vec<Pod> {
        let pods = self.pod_cache.all();
        pods.iter().filter_map(running_pod).collect()
    }

    async fn pods_usage(&self, scope: UsageScope) -> PodsUsage {
        let mut usage = self.stats.list_pod_stats(scope).await;
        if scope == UsageScope::Everything
            && let Some(volumes) = &self.volume_stats
        {
            volumes.add_to(&mut usage.pods, |uid| self.pod_manager.get(uid)).await;
        }
        usage
    }

    async fn image_fs_usage(&self) -> Vec<FsUsage> {
        self.stats.image_fs_stats().await
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { mirror_pods: self.pod_manager.mirror_count(), ..Counts::default() };
        for pod in self.pod_cache.all() {
            counts.running_pods += usize::from(pod.active_sandbox().is_some());
            for container in &pod.containers {
                *counts.containers.entry(state_name(container.state)).or_default() += 1;
            }
        }
        let pods = self.pod_manager.pods();
        let is_active =
            |pod: &&Arc<Pod>| !phase::is_terminal(pod.phase()) && !self.status_manager.has_ended(&pod.uid());
        counts.desired_pods = by_kind(pods.iter());
        counts.active_pods = by_kind(pods.iter().filter(is_active));
        counts
    }
}

/// How many are not static, and how many are.
fn by_kind<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> (usize, usize) {
    let (is_static, regular): (Vec<_>, Vec<_>) = pods.partition(|pod| pod.is_static());
    (regular.len(), is_static.len())
}

fn state_name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "unknown",
    }
}

/// A pod of a runtime as the API writes pods (`ToAPIPod`); none if nothing of it runs.
fn running_pod(pod: &RuntimePod) -> Option<Pod> {
    let running: Vec<_> = pod.running_containers().collect();
    let reference = pod.active_sandbox().map(|s| &s.pod).or(running.first().map(|c| &c.pod))?;
    let container = |c: &&RuntimeContainer| Container {
        name: c.name.clone(),
        image: Some(c.image.image.clone()),
        ..Container::default()
    };
    Some(Pod {
        metadata: ObjectMeta {
            name: Some(reference.name.clone()),
            namespace: Some(reference.namespace.clone()),
            uid: Some(reference.uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: running.iter().map(container).collect(), ..PodSpec::default() }),
        status: None,
    })
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
