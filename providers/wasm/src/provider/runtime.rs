//! `RuntimeService`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{
    ArtifactKind, Condition, ContainerConfig, ContainerStats, ContainerStatus, Error, EventStream,
    LiveResize, NetworkStats, Provider, Resources, Result, Revision, RuntimeHandler, RuntimeService,
    RuntimeStatus, SandboxConfig, SandboxStatus, Snapshot, Version,
};
use jiff::Timestamp;

use super::{WasmProvider, no_container};
use crate::engine::WASMTIME_VERSION;

/// The name of the runtime, of container ids and of the RuntimeClass handler.
const NAME: &str = "wasm";

impl Provider for WasmProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn runs(&self) -> ArtifactKind {
        ArtifactKind::Wasm
    }
}

#[async_trait]
impl RuntimeService for WasmProvider {
    async fn version(&self) -> Result<Version> {
        Ok(Version {
            runtime_name: NAME.into(),
            runtime_version: format!("{}+wasmtime.{WASMTIME_VERSION}", env!("CARGO_PKG_VERSION")),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        Ok(RuntimeStatus {
            runtime_ready: Condition::ok(),
            network_ready: match self.shared.options.network.ready() {
                Ok(()) => Condition::ok(),
                Err(message) => Condition { status: false, reason: "NetworkPluginNotReady".into(), message },
            },
            handlers: ["", NAME].map(|name| RuntimeHandler { name: name.into() }).into(),
        })
    }

    fn subscribe(&self) -> EventStream {
        self.shared.tables.subscribe()
    }

    async fn list(&self) -> Result<Snapshot> {
        Ok(self.shared.tables.list())
    }

    async fn list_pod(&self, pod_uid: &str) -> Result<Snapshot> {
        Ok(self.shared.tables.list_pod(pod_uid))
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        let shared = self.shared.clone();
        let key = (config.pod.uid.clone(), config.attempt);
        let work = shared.clone().run_sandbox(config);
        shared.flights.run_sandbox.run(&shared.spawner, key, work).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        let shared = self.shared.clone();
        let work = shared.clone().stop_sandbox(id.into());
        shared.flights.stop_sandbox.run(&shared.spawner, id.into(), work).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<Revision> {
        self.spawned(self.shared.clone().remove_sandbox(id.into())).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        let shared = self.shared.clone();
        let key = (sandbox_id.into(), config.name.clone(), config.attempt);
        let work = shared.clone().create_container(sandbox_id.into(), config);
        shared.flights.create_container.run(&shared.spawner, key, work).await
    }

    async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        let shared = self.shared.clone();
        let work = shared.clone().start_container(id.into());
        shared.flights.start_container.run(&shared.spawner, id.into(), work).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>> {
        let shared = self.shared.clone();
        let container = shared.tables.container(id).ok_or_else(|| no_container(id))?;
        self.spawned(async move { Ok(shared.stop_container(&container, grace).await) }).await
    }

    async fn remove_container(&self, id: &str) -> Result<Revision> {
        self.spawned(self.shared.clone().remove_container(id.into())).await
    }

    fn live_resize(&self) -> LiveResize {
        // Processors are not limited yet, so there is nothing that could be changed.
        LiveResize { cpu: false, memory: true }
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
    ) -> Result<Arc<ContainerStatus>> {
        self.shared.update_resources(id, resources)
    }

    async fn container_stats(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStats>> {
        Ok(self.shared.tables.running(pod_uid).iter().filter_map(|container| container.stats()).collect())
    }

    /// Those of pods with a network namespace of their own.
    async fn network_stats(&self, pod_uid: Option<&str>) -> Result<Vec<NetworkStats>> {
        let sandboxes = self.shared.tables.sandboxes(pod_uid);
        let read = move || {
            let stats = sandboxes.iter().filter_map(|sandbox| {
                // One that ends meanwhile has carried nothing any more.
                let interfaces = sandbox.net()?.carried()?.ok()?;
                Some(NetworkStats { sandbox_id: sandbox.id.clone(), timestamp: Timestamp::now(), interfaces })
            });
            stats.collect()
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| Error::internal(format!("networks cannot be measured: {error}")))
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let container = self.shared.tables.container(id).ok_or_else(|| no_container(id))?;
        let Some(log) = container.log() else {
            return Err(Error::invalid(format!("container {id} does not run: its log is complete")));
        };
        log.reopen().await.map_err(|error| {
            Error::internal(format!("cannot open the log {}: {error}", container.status().log_path.display()))
        })
    }
}
