//! The calls of a provider, split as CRI splits them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::container::{ContainerConfig, ContainerStats, ContainerStatus, NetworkStats, Resources};
use crate::error::{Error, Result};
use crate::event::EventStream;
use crate::image::{ArtifactKind, FsUsage, Image, ImageSpec, PullProgress, PullRequest};
use crate::revision::Revision;
use crate::sandbox::{SandboxConfig, SandboxStatus};
use crate::snapshot::Snapshot;
use crate::streaming::StreamingService;

/// What a provider is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The runtime's name, as `nodeInfo.containerRuntimeVersion` and container ids show it: `containerd`, `wasm`.
    pub runtime_name: String,
    /// The runtime's version.
    pub runtime_version: String,
}

/// One condition of a provider's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether it holds.
    pub status: bool,
    /// One word, if it does not hold.
    pub reason: String,
    /// One line, if it does not hold.
    pub message: String,
}

impl Condition {
    /// It holds.
    pub fn ok() -> Self {
        Self { status: true, ..Self::default() }
    }

    /// It does not.
    pub fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: false, reason: reason.into(), message: message.into() }
    }
}

/// A RuntimeClass handler that a provider serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeHandler {
    /// Its name; empty for the default one.
    pub name: String,
}

/// What of a container can be changed while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveResize {
    /// CPU limit and request.
    pub cpu: bool,
    /// Memory limit and request.
    pub memory: bool,
}

/// Health of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// Containers can be started.
    pub runtime_ready: Condition,
    /// Pods get a network.
    pub network_ready: Condition,
    /// The handlers that it serves.
    pub handlers: Vec<RuntimeHandler>,
}

/// Sandboxes and containers (CRI: `RuntimeService`).
///
/// A change runs in a task of the provider: dropping the call ends the waiting, not the work. Making something twice
/// is one thing, stopping what has ended and removing what is gone is success. What a call answers is already on
/// disk where the provider keeps records.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    /// What the provider is.
    async fn version(&self) -> Result<Version>;

    /// How it is.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Changes, from now on.
    fn subscribe(&self) -> EventStream;

    /// Everything there is.
    async fn list(&self) -> Result<Snapshot>;

    /// Everything there is of one pod.
    async fn list_pod(&self, pod_uid: &str) -> Result<Snapshot>;

    /// Makes and starts a sandbox. The same pod and attempt twice is one sandbox.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>>;

    /// Stops a sandbox, its containers at once, and gives its address back.
    async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>>;

    /// Removes a stopped sandbox and its containers.
    async fn remove_sandbox(&self, id: &str) -> Result<Revision>;

    /// Makes a container. The same sandbox, name and attempt twice is one container.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>>;

    /// Starts a container that was made. It is `Running` in the answer, or already `Exited`.
    async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>>;

    /// Stops a container: asks first, and ends it after `grace`. Returns once it has ended. A second call may shorten
    /// the grace of the first, never extend it.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>>;

    /// Removes a container that does not run.
    async fn remove_container(&self, id: &str) -> Result<Revision>;

    /// What [`update_container_resources`](Self::update_container_resources) can change.
    fn live_resize(&self) -> LiveResize {
        LiveResize::default()
    }

    /// Changes limits and weights of a container while it runs. What differs from before is only what
    /// [`live_resize`](Self::live_resize) names.
    async fn update_container_resources(
        &self,
        _id: &str,
        _resources: Resources,
    ) -> Result<Arc<ContainerStatus>> {
        Err(Error::unimplemented("in-place resize"))
    }

    /// What running containers have used: all, or those of one pod.
    async fn container_stats(&self, _pod_uid: Option<&str>) -> Result<Vec<ContainerStats>> {
        Err(Error::unimplemented("container statistics"))
    }

    /// What the networks of sandboxes have carried: all, or that of one pod. Those that nobody counts are left out.
    async fn network_stats(&self, _pod_uid: Option<&str>) -> Result<Vec<NetworkStats>> {
        Ok(Vec::new())
    }

    /// Goes on writing to a new log file after the old one was moved away.
    async fn reopen_container_log(&self, _id: &str) -> Result<()> {
        Err(Error::unimplemented("log rotation"))
    }
}

/// Images (CRI: `ImageService`).
#[async_trait]
pub trait ImageService: Send + Sync {
    /// Fetches an image and prepares it. `progress` hears of it; a full or closed channel holds up nothing.
    async fn pull_image(
        &self,
        request: PullRequest,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Image>;

    /// The image, if it is present.
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>>;

    /// All images that are present.
    async fn list_images(&self) -> Result<Vec<Image>>;

    /// Removes an image. Removing what is gone is success.
    async fn remove_image(&self, image: &ImageSpec) -> Result<()>;

    /// How full the file systems of images are.
    async fn image_fs_info(&self) -> Result<Vec<FsUsage>>;
}

/// Something that runs containers.
pub trait Provider: RuntimeService + ImageService + StreamingService {
    /// A short fixed name, for logs, metrics and container ids (`wasm://…`).
    fn name(&self) -> &'static str;

    /// What it runs.
    fn runs(&self) -> ArtifactKind;
}
