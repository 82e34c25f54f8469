//! Keeping container logs from filling the disk (upstream: `pkg/kubelet/logs/container_log_manager.go`).

mod files;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ContainerState, Provider};
use futures::StreamExt;
use tokio::fs;
use tracing::{debug, warn};

pub(crate) use files::clean;
use files::{FileError, make_room, rotated};

use crate::clock;
use crate::kuberuntime::RuntimeContainer;
use crate::pod_cache::PodCache;
use crate::providers::Providers;

/// When logs are rotated, and how much is kept (`LogRotatePolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRotatePolicy {
    /// `containerLogMaxSize`: the size in bytes from which on a log is rotated.
    pub max_size: u64,
    /// `containerLogMaxFiles`: how many files a log has at most, the one that is written included; at least 2.
    pub max_files: usize,
    /// `containerLogMaxWorkers`: how many logs are rotated at a time; at least 1.
    pub max_workers: usize,
    /// `containerLogMonitorInterval`: how long logs are left alone between two looks at them.
    pub monitoring_period: Duration,
}

/// Rotates the logs of running containers. Those of ended ones do not grow.
pub struct ContainerLogManager {
    providers: Providers,
    cache: Arc<PodCache>,
    policy: LogRotatePolicy,
}

/// Why a log was not rotated.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot open it anew: {0}")]
    Reopen(#[from] coracle_provider::Error),
    #[error("the rotation ended abnormally: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ContainerLogManager {
    /// Looks after the logs of the containers in `cache`.
    pub fn new(providers: Providers, cache: Arc<PodCache>, policy: LogRotatePolicy) -> Self {
        Self { providers, cache, policy }
    }

    /// Rotates logs until it is dropped.
    pub async fn run(&self) {
        loop {
            self.rotate_logs().await;
            tokio::time::sleep(self.policy.monitoring_period).await;
        }
    }

    /// Looks at every log once.
    async fn rotate_logs(&self) {
        let pods = self.cache.all();
        let containers = pods.into_iter().flat_map(|pod| pod.containers);
        let running = containers.filter(|container| {
            container.state == ContainerState::Running && self.providers.by_name(container.provider).is_some()
        });
        let running = running.collect();
        let max_size = self.policy.max_size;
        // One look for all of them: on most rounds, nothing else happens.
        let due = tokio::task::spawn_blocking(move || due(running, max_size)).await.unwrap_or_default();
        let workers = Some(self.policy.max_workers);
        futures::stream::iter(due).for_each_concurrent(workers, |container| self.process(container)).await;
    }

    async fn process(&self, container: RuntimeContainer) {
        let Some(provider) = self.providers.by_name(container.provider) else { return };
        if let Err(error) = self.process_container(&**provider, &container).await {
            warn!(%error, container = %container.id, log = %container.log_path.display(), "rotating a log failed");
        }
    }

    async fn process_container(
        &self,
        provider: &dyn Provider,
        container: &RuntimeContainer,
    ) -> Result<(), RotateError> {
        let log = &container.log_path;
        if let Err(error) = fs::metadata(log).await {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(FileError::at("look at", log)(error).into());
            }
            // An agent that ended in the middle of a rotation has left it so.
            return Ok(provider.reopen_container_log(&container.id).await?);
        }
        let (path, max_files) = (log.clone(), self.policy.max_files);
        tokio::task::spawn_blocking(move || make_room(&path, max_files)).await??;
        rotate_latest_log(provider, &container.id, log).await?;
        debug!(container = %container.id, log = %log.display(), "rotated a log");
        Ok(())
    }
}

/// The containers whose log is too long, or not there.
fn due(mut containers: Vec<RuntimeContainer>, max_size: u64) -> Vec<RuntimeContainer> {
    containers.retain(|container| {
        std::fs::metadata(&container.log_path).map_or(true, |metadata| metadata.len() >= max_size)
    });
    containers
}

/// Puts the log aside as it is, for those who are still reading it; its runtime goes on in a new one.
async fn rotate_latest_log(provider: &dyn Provider, id: &str, log: &Path) -> Result<(), RotateError> {
    let rotated = rotated(log, clock::now());
    fs::rename(log, &rotated).await.map_err(FileError::at("rename", log))?;
    if let Err(error) = provider.reopen_container_log(id).await {
        // What is written meanwhile goes to the old file: under its old name, the next round may do better.
        fs::rename(&rotated, log).await.map_err(FileError::at("rename back", &rotated))?;
        return Err(error.into());
    }
    Ok(())
}
