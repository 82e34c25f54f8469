//! Changes of containers.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ContainerConfig, ContainerState, ContainerStatus, Error, Result, Revision};

use super::Shared;
use super::sandboxes::make_folder;
use crate::bindings as cri;
use crate::convert::{container_config, sandbox_config};

impl Shared {
    pub(super) async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        let observer = &self.observer;
        let made = || observer.table.container_of(sandbox_id, &config.name, config.attempt);
        if let Some(made) = made() {
            return Ok(made);
        }
        if let Some(folder) = config.sandbox.log_directory.join(&config.log_path).parent() {
            make_folder(folder).await?;
        }
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(container_config(&config, self.quota_period)?),
            sandbox_config: Some(sandbox_config(&config.sandbox, self.quota_period)?),
        };
        match observer.client.create_container(request).await {
            Ok(answer) => observer.container(&answer.container_id).await,
            // An earlier call, maybe of another agent, may have made it: then its name is taken.
            Err(error) => {
                let uid = &config.sandbox.pod.uid;
                observer.all(Some(uid)).await.map_err(|_| error.clone())?;
                made().ok_or(error)
            }
        }
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        let observer = &self.observer;
        let is_startable = |it: &Arc<ContainerStatus>| it.state == ContainerState::Created;
        if !observer.table.container(id).as_ref().is_some_and(is_startable) {
            let now = observer.container(id).await?;
            if !is_startable(&now) {
                return Ok(now);
            }
        }
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        let started = observer.client.start_container(request).await;
        // What could not be started has ended.
        let now = observer.container(id).await;
        started.and(now)
    }

    pub(super) async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.observer.client.stop_container(id.to_owned(), seconds).await?;
        let now = self.observer.container(id).await?;
        match now.state {
            ContainerState::Running => {
                Err(Error::internal(format!("container {id:?} runs after it was stopped")))
            }
            _ => Ok(now),
        }
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<Revision> {
        let observer = &self.observer;
        match observer.container(id).await {
            // The runtime would stop it, too, and nobody would learn how it ended.
            Ok(container) if container.state == ContainerState::Running => {
                return Err(Error::invalid(format!(
                    "container {id:?} has to be stopped before it is removed"
                )));
            }
            Ok(_) => {
                let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
                observer.client.remove_container(request).await?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(observer.table.remove_container(id))
    }
}
