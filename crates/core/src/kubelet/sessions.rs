//! Sessions go to the provider that runs the container (upstream: `kubelet_pods.go`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::{ContainerState, PortConnection, Provider, SessionOptions, Stream};
use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use crate::lifecycle::UNLIMITED;
use crate::pod::PodExt;
use crate::sessions::{ContainerTarget, PodTarget, SessionError, Sessions};

#[async_trait]
impl Sessions for Kubelet {
    async fn exec(
        &self,
        target: &ContainerTarget,
        command: &[String],
        options: SessionOptions,
    ) -> Result<Stream, SessionError> {
        let found = self.find_container(target)?;
        Ok(found.provider.exec(&found.id, command, options).await?)
    }

    async fn attach(
        &self,
        target: &ContainerTarget,
        options: SessionOptions,
    ) -> Result<Stream, SessionError> {
        let found = self.find_container(target)?;
        let containers = found.pod.all_containers();
        let spec = containers.iter().find(|container| container.name == target.container);
        let tty = spec.is_some_and(|container| container.tty == Some(true));
        Ok(found.provider.attach(&found.id, SessionOptions { tty, ..options }).await?)
    }

    async fn port_forward_url(
        &self,
        target: &PodTarget,
        ports: &[u16],
    ) -> Result<Option<String>, SessionError> {
        let (provider, sandbox_id) = self.find_sandbox(target)?;
        Ok(provider.port_forward_url(&sandbox_id, ports).await?)
    }

    async fn port_forward(&self, target: &PodTarget, port: u16) -> Result<PortConnection, SessionError> {
        let (provider, sandbox_id) = self.find_sandbox(target)?;
        Ok(provider.port_forward(&sandbox_id, port).await?)
    }

    async fn run_in_container(
        &self,
        target: &ContainerTarget,
        command: &[String],
    ) -> Result<Vec<u8>, SessionError> {
        let found = self.find_container(target)?;
        let response = found.provider.exec_sync(&found.id, command, UNLIMITED).await?;
        if response.exit_code != 0 {
            let stderr = String::from_utf8_lossy(&response.stderr).into_owned();
            return Err(SessionError::Exited {
                command: command.join(" "),
                code: response.exit_code,
                stderr,
            });
        }
        Ok([response.stdout, response.stderr].concat())
    }
}

impl Kubelet {
    /// A pod, if it is still the one that is meant.
    fn find_pod(&self, target: &PodTarget) -> Option<Arc<Pod>> {
        let pod = self.pod_manager.get_by_name(&target.namespace, &target.name)?;
        let is_meant = |uid: &String| {
            let mirror = self.pod_manager.mirror_of(&pod);
            *uid == *pod.uid() || mirror.is_some_and(|mirror| *uid == *mirror.uid())
        };
        target.uid.as_ref().is_none_or(is_meant).then_some(pod)
    }

    /// The sandbox that a pod lives in, and who runs it.
    fn find_sandbox(&self, target: &PodTarget) -> Result<(Arc<dyn Provider>, String), SessionError> {
        let not_found = || SessionError::PodNotFound { pod: format!("{}_{}", target.name, target.namespace) };
        let pod = self.find_pod(target).ok_or_else(not_found)?;
        let runtime = self.pod_cache.get(&pod.uid());
        let sandbox = runtime.active_sandbox().ok_or_else(not_found)?;
        let provider = self.providers.by_name(sandbox.provider).ok_or_else(not_found)?;
        Ok((provider.clone(), sandbox.id.clone()))
    }

    /// A container that runs, and who runs it (`findContainer`).
    fn find_container(&self, target: &ContainerTarget) -> Result<Found, SessionError> {
        let not_found = || SessionError::ContainerNotFound { container: target.container.clone() };
        let pod = self.find_pod(&target.pod).ok_or_else(not_found)?;
        let runtime = self.pod_cache.get(&pod.uid());
        let mut running = runtime.containers.iter().filter(|it| it.state == ContainerState::Running);
        let found = running.find(|it| it.name == target.container).ok_or_else(not_found)?;
        let provider = self.providers.by_name(found.provider).ok_or_else(not_found)?;
        Ok(Found { pod, provider: provider.clone(), id: found.id.clone() })
    }
}

/// A container that runs.
struct Found {
    pod: Arc<Pod>,
    provider: Arc<dyn Provider>,
    id: String,
}
