//! What the runtimes have of one pod (upstream: `kubecontainer.PodStatus`).

use std::cmp::Reverse;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use coracle_provider::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::labels;
use crate::pod::{PodExt, PodUid};

/// A sandbox and who has it.
#[derive(Clone, Debug)]
pub struct RuntimeSandbox {
    /// [`coracle_provider::Provider::name`].
    pub provider: &'static str,
    /// Its state.
    pub status: Arc<SandboxStatus>,
}

impl Deref for RuntimeSandbox {
    type Target = SandboxStatus;
    fn deref(&self) -> &SandboxStatus {
        &self.status
    }
}

/// A container and who has it.
#[derive(Clone, Debug)]
pub struct RuntimeContainer {
    /// [`coracle_provider::Provider::name`].
    pub provider: &'static str,
    /// Its state.
    pub status: Arc<ContainerStatus>,
}

impl Deref for RuntimeContainer {
    type Target = ContainerStatus;
    fn deref(&self) -> &ContainerStatus {
        &self.status
    }
}

impl RuntimeContainer {
    /// `provider://id`, as the API shows it.
    pub fn container_id(&self) -> String {
        format!("{}://{}", self.provider, self.id)
    }

    /// Whether it was made from another image or name than `container` has now (upstream: `containerChanged`).
    pub fn changed(&self, container: &Container) -> bool {
        labels::container_hash_annotation(&self.status.annotations) != Some(labels::hash_container(container))
    }

    /// How often this container had been restarted when this instance was made.
    pub fn restart_count(&self) -> u32 {
        labels::restart_count_annotation(&self.status.annotations).unwrap_or(self.attempt)
    }
}

/// Everything the runtimes have of one pod, the newest first.
#[derive(Clone, Debug)]
pub struct RuntimePod {
    /// The pod.
    pub uid: PodUid,
    /// Its sandboxes.
    pub sandboxes: Vec<RuntimeSandbox>,
    /// Its containers, ended ones included.
    pub containers: Vec<RuntimeContainer>,
}

impl RuntimePod {
    /// A pod that no runtime has heard of.
    pub fn empty(uid: PodUid) -> Self {
        Self { uid, sandboxes: Vec::new(), containers: Vec::new() }
    }

    /// Puts the newest of each name first: by attempt, for clocks may stand still or go back. One that runs is before all
    /// others, so that nothing is started beside it.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| Reverse((s.attempt, s.created_at)));
        let runs = |c: &RuntimeContainer| c.state == ContainerState::Running;
        self.containers.sort_by_key(|c| Reverse((runs(c), c.attempt, c.created_at)));
    }

    /// The newest instance of a container (`FindContainerStatusByName`).
    pub fn find(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest instance of a container in the newest sandbox (`FindActiveContainerStatusByName`).
    pub fn find_active(&self, name: &str) -> Option<&RuntimeContainer> {
        let active = self.active_sandbox()?;
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == active.id)
    }

    /// Containers that run, or of which nobody knows that they do not.
    pub fn running_containers(&self) -> impl Iterator<Item = &RuntimeContainer> {
        self.containers
            .iter()
            .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
    }

    /// Whether anything of it is alive (`isPodStatusCacheTerminal`, negated).
    pub fn is_alive(&self) -> bool {
        self.containers.iter().any(|c| c.state == ContainerState::Running)
            || self.sandboxes.iter().any(|s| s.state == SandboxState::Ready)
    }

    /// The pod's addresses: those of its newest sandbox, while that is ready.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.active_sandbox().map(|s| s.network.ips.clone()).unwrap_or_default()
    }

    /// The newest sandbox, if containers can run in it.
    pub fn active_sandbox(&self) -> Option<&RuntimeSandbox> {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready)
    }

    /// Whether a main container was ever made (`HasAnyRegularContainerCreated`).
    pub fn has_any_regular_container_created(&self, pod: &Pod) -> bool {
        pod.containers().iter().filter_map(|c| self.find(&c.name)).any(|c| {
            matches!(c.state, ContainerState::Created | ContainerState::Running | ContainerState::Exited)
        })
    }

    /// Whether a main container was made in the newest sandbox (`HasAnyActiveRegularContainerStarted`): then all init
    /// containers are done.
    pub fn has_any_active_regular_container_started(&self, pod: &Pod) -> bool {
        pod.containers().iter().any(|c| self.find_active(&c.name).is_some())
    }
}
