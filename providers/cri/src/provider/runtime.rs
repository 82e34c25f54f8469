//! `RuntimeService`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{
    Condition, ContainerConfig, ContainerStats, ContainerStatus, DiskStats, Event, EventStream, LiveResize,
    MemoryStats, PodRef, Resources, Result, Revision, RuntimeHandler, RuntimeService, RuntimeStatus,
    SandboxConfig, SandboxStatus, Snapshot, Version,
};
use futures::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;

use super::CriProvider;
use crate::bindings as cri;
use crate::convert::{POD_UID_LABEL, linux_resources, timestamp};
use crate::flights::detached;

#[async_trait]
impl RuntimeService for CriProvider {
    async fn version(&self) -> Result<Version> {
        let version = self.shared.observer.client.version(cri::VersionRequest::default()).await?;
        Ok(Version { runtime_name: version.runtime_name, runtime_version: version.runtime_version })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let answer = self.shared.observer.client.status(cri::StatusRequest { verbose: false }).await?;
        let conditions = answer.status.unwrap_or_default().conditions;
        // Older runtimes do not say which handlers they have; the default one is always there.
        let mut handlers = vec![RuntimeHandler::default()];
        let named = answer.runtime_handlers.into_iter().filter(|it| !it.name.is_empty());
        handlers.extend(named.map(|it| RuntimeHandler { name: it.name }));
        Ok(RuntimeStatus {
            runtime_ready: condition(&conditions, "RuntimeReady"),
            network_ready: condition(&conditions, "NetworkReady"),
            handlers,
        })
    }

    fn subscribe(&self) -> EventStream {
        let events = BroadcastStream::new(self.shared.observer.table.subscribe());
        events.map(|event| event.unwrap_or(Event::Lagged)).boxed()
    }

    async fn list(&self) -> Result<Snapshot> {
        self.shared.observer.all(None).await
    }

    async fn list_pod(&self, pod_uid: &str) -> Result<Snapshot> {
        self.shared.observer.all(Some(pod_uid)).await
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        let (shared, key) = (self.shared.clone(), (config.pod.uid.clone(), config.attempt));
        self.shared.sandboxes.join(key, async move { shared.run_sandbox(config).await }).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.stop_sandbox(&id).await }).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<Revision> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.remove_sandbox(&id).await }).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        let (shared, sandbox_id) = (self.shared.clone(), sandbox_id.to_owned());
        let key = (sandbox_id.clone(), config.name.clone(), config.attempt);
        let create = async move { shared.create_container(&sandbox_id, config).await };
        self.shared.containers.join(key, create).await
    }

    async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        self.shared.starts.join(id.clone(), async move { shared.start_container(&id).await }).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.stop_container(&id, grace).await }).await
    }

    async fn remove_container(&self, id: &str) -> Result<Revision> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.remove_container(&id).await }).await
    }

    fn live_resize(&self) -> LiveResize {
        LiveResize { cpu: true, memory: true }
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
    ) -> Result<Arc<ContainerStatus>> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move {
            let linux = Some(linux_resources(&resources, shared.quota_period));
            let container_id = id.clone();
            let request = cri::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
            shared.observer.client.update_container_resources(request).await?;
            shared.observer.container(&id).await
        })
        .await
    }

    async fn container_stats(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStats>> {
        let filter = pod_uid.map(|uid| cri::ContainerStatsFilter {
            label_selector: [(POD_UID_LABEL.to_owned(), uid.to_owned())].into(),
            ..cri::ContainerStatsFilter::default()
        });
        let observer = &self.shared.observer;
        let listed = observer.client.list_container_stats(cri::ListContainerStatsRequest { filter }).await?;
        let known = listed.stats.into_iter().filter_map(|stats| {
            let container = observer.table.container(&stats.attributes.as_ref()?.id)?;
            Some(container_stats(stats, &container.pod))
        });
        known.collect()
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.shared.observer.client.reopen_container_log(request).await.map(drop)
    }
}

/// One that the runtime does not mention does not hold (`runtimeStatus.GetRuntimeCondition`).
fn condition(conditions: &[cri::RuntimeCondition], name: &str) -> Condition {
    match conditions.iter().find(|it| it.r#type == name) {
        Some(it) if it.status => Condition::ok(),
        Some(it) => Condition::failed(&it.reason, &it.message),
        None => Condition::failed("Unknown", format!("the runtime does not say {name}")),
    }
}

fn container_stats(stats: cri::ContainerStats, pod: &PodRef) -> Result<ContainerStats> {
    let value = |it: Option<cri::UInt64Value>| it.map_or(0, |it| it.value);
    let (attributes, cpu) = (stats.attributes.unwrap_or_default(), stats.cpu.unwrap_or_default());
    let memory = stats.memory.unwrap_or_default();
    let disk = stats.writable_layer;
    Ok(ContainerStats {
        id: attributes.id,
        pod: pod.clone(),
        name: attributes.metadata.unwrap_or_default().name,
        timestamp: timestamp(cpu.timestamp)?,
        cpu_usage_core_nanos: value(cpu.usage_core_nano_seconds),
        memory: MemoryStats {
            working_set_bytes: value(memory.working_set_bytes),
            usage_bytes: value(memory.usage_bytes),
            rss_bytes: value(memory.rss_bytes),
        },
        writable_layer: disk
            .map(|it| DiskStats { used_bytes: value(it.used_bytes), inodes_used: value(it.inodes_used) }),
        traps: None,
    })
}
