//! The control group of a pod whose resources change (upstream: `resizeContainers` in `doPodResizeAction`). What gets
//! more gets it before its containers do, and what gets less after them, so that they always fit into it.

use k8s_openapi::api::core::v1::Pod;

use super::resize::Resource;
use crate::cm::{ContainerManager, ResourceConfig};
use crate::pod::PodExt;

/// The group of a pod that is being resized.
pub(super) struct PodGroup<'a> {
    manager: &'a ContainerManager,
    pod: &'a Pod,
    current: ResourceConfig,
    wanted: ResourceConfig,
}

impl<'a> PodGroup<'a> {
    /// None for a pod without a group.
    pub(super) async fn of(
        manager: Option<&'a ContainerManager>,
        pod: &'a Pod,
    ) -> Result<Option<Self>, String> {
        let Some(manager) = manager else { return Ok(None) };
        if !manager.has_pod_cgroup(pod).await {
            return Ok(None);
        }
        let current = manager.current_pod_config(pod).await.map_err(|error| {
            format!("unable to get pod cgroup config for pod {:?}: {error}", pod.display_name())
        })?;
        Ok(Some(Self { manager, pod, current, wanted: manager.pod_config(pod) }))
    }

    /// Before containers are resized.
    pub(super) async fn raise(&self, resource: Resource) -> Result<(), String> {
        self.set(self.change(resource, |from, to| from < to)).await
    }

    /// After containers were resized.
    pub(super) async fn lower(&self, resource: Resource) -> Result<(), String> {
        self.set(self.change(resource, |from, to| from > to)).await
    }

    /// What changes in this direction. A limit that is no more stays, as upstream has it.
    fn change(&self, resource: Resource, direction: fn(i64, i64) -> bool) -> ResourceConfig {
        let (current, wanted) = (&self.current, &self.wanted);
        let changes =
            |from: Option<i64>, to: Option<i64>| to.filter(|to| from.is_none_or(|from| direction(from, *to)));
        match resource {
            Resource::Memory => {
                ResourceConfig { memory: changes(current.memory, wanted.memory), ..ResourceConfig::default() }
            }
            Resource::Cpu => {
                let cpu_quota = changes(current.cpu_quota, wanted.cpu_quota);
                ResourceConfig {
                    cpu_quota,
                    cpu_period: wanted.cpu_period.filter(|_| cpu_quota.is_some()),
                    cpu_shares: changes(current.cpu_shares, wanted.cpu_shares),
                    ..ResourceConfig::default()
                }
            }
        }
    }

    async fn set(&self, config: ResourceConfig) -> Result<(), String> {
        if config == ResourceConfig::default() {
            return Ok(());
        }
        self.manager.set_pod_config(self.pod, &config).await.map_err(|error| error.to_string())
    }
}
