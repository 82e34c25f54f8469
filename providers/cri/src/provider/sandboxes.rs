//! Changes of sandboxes.

use std::path::Path;
use std::sync::Arc;

use coracle_provider::{Error, Result, Revision, SandboxConfig, SandboxState, SandboxStatus};

use super::Shared;
use crate::bindings as cri;
use crate::convert::sandbox_config;

impl Shared {
    pub(super) async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        let (observer, uid, attempt) = (&self.observer, &config.pod.uid, config.attempt);
        if let Some(made) = observer.table.sandbox_of(uid, attempt) {
            return Ok(made);
        }
        make_folder(&config.log_directory).await?;
        let request = cri::RunPodSandboxRequest {
            config: Some(sandbox_config(&config, self.quota_period)?),
            runtime_handler: config.runtime_handler.clone(),
        };
        match observer.client.run_pod_sandbox(request).await {
            Ok(id) => observer.sandbox(&id).await,
            // An earlier call, maybe of another agent, may have made it: then its name is taken.
            Err(error) => {
                observer.all(Some(uid)).await.map_err(|_| error.clone())?;
                let made = observer.table.sandbox_of(uid, attempt);
                made.filter(|it| it.state == SandboxState::Ready).ok_or(error)
            }
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        let observer = &self.observer;
        let uid = match observer.table.sandbox(id) {
            Some(known) => known.pod.uid.clone(),
            None => observer.sandbox_status(id).await?.pod.uid,
        };
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        observer.client.stop_pod_sandbox(request).await?;
        // Its containers ended before it.
        observer.all(Some(&uid)).await?;
        observer.sandbox(id).await
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<Revision> {
        let observer = &self.observer;
        match observer.sandbox(id).await {
            // The runtime would stop it, too, and nobody would learn how its containers ended.
            Ok(sandbox) if sandbox.state == SandboxState::Ready => {
                return Err(Error::invalid(format!("sandbox {id:?} has to be stopped before it is removed")));
            }
            Ok(_) => {
                let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
                observer.client.remove_pod_sandbox(request).await?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(observer.table.remove_sandbox(id))
    }
}

/// Runtimes write logs into folders that are there.
pub(super) async fn make_folder(path: &Path) -> Result<()> {
    let made = tokio::fs::create_dir_all(path).await;
    made.map_err(|error| {
        Error::internal(format!("cannot make the folder for logs {}: {error}", path.display()))
    })
}
