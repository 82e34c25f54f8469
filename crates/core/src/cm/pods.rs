//! The groups of pods (upstream: `pod_container_manager_linux.go`).

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use super::manager::ContainerManager;
use super::name::CgroupName;
use super::resource_config::{MIN_SHARES, ResourceConfig, resource_config_for_pod};
use crate::pod::{PodExt, PodUid};
use crate::ports::CgroupError;
use crate::qos::pod_qos;

/// What the name of a pod's group begins with, before its UID.
const PREFIX: &str = "pod";

impl ContainerManager {
    /// The group of a pod (`GetPodContainerName`). A UID from a manifest may be none that a group can be called by.
    fn pod_cgroup(&self, pod: &Pod) -> Result<CgroupName, CgroupError> {
        let (class, base) = (self.qos_cgroup(&pod_qos(pod)), format!("{PREFIX}{}", pod.uid()));
        let name = class.child(&base);
        if CgroupName::is_component(&base) {
            return Ok(name);
        }
        Err(CgroupError::Invalid {
            name,
            problem: "cannot be made: the pod's UID has \"/\" or \"_\" in it".to_owned(),
        })
    }

    /// The same as a path, which a runtime makes the groups of containers in.
    pub fn pod_cgroup_parent(&self, pod: &Pod) -> Result<String, CgroupError> {
        Ok(self.pod_cgroup(pod)?.path(self.groups.driver()))
    }

    /// Whether a pod has its group.
    pub async fn has_pod_cgroup(&self, pod: &Pod) -> bool {
        match self.pod_cgroup(pod) {
            Ok(name) => self.groups.validate(&name).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Makes the group of a pod, limited to what was allocated to it (`EnsureExists`).
    pub async fn create_pod_cgroup(&self, pod: &Pod) -> Result<(), CgroupError> {
        let config = ResourceConfig {
            pids: self.options.pod_pids_limit.filter(|limit| *limit > 0),
            ..self.pod_config(pod)
        };
        self.groups.create(&self.pod_cgroup(pod)?, &config).await
    }

    /// What a pod as a whole is to be limited to.
    pub fn pod_config(&self, pod: &Pod) -> ResourceConfig {
        let period = self.options.cpu_quota_period;
        resource_config_for_pod(pod, self.options.enforce_cpu_limits.then_some(period), period)
    }

    /// What it is limited to at the moment (`GetPodCgroupConfig`).
    pub async fn current_pod_config(&self, pod: &Pod) -> Result<ResourceConfig, CgroupError> {
        self.groups.config(&self.pod_cgroup(pod)?).await
    }

    /// Limits it anew (`SetPodCgroupConfig`).
    pub async fn set_pod_config(&self, pod: &Pod, config: &ResourceConfig) -> Result<(), CgroupError> {
        self.groups.update(&self.pod_cgroup(pod)?, config).await
    }

    /// Processes and threads of a pod; 0 if it has no group.
    pub async fn processes_of(&self, pod: &Pod) -> u64 {
        match self.pod_cgroup(pod) {
            Ok(name) => self.groups.usage(&name).await.map_or(0, |usage| usage.processes),
            Err(_) => 0,
        }
    }

    /// Bytes of memory that pods as a whole have left, and that they may have; none without a limit (upstream: the system
    /// container `pods` in the summary).
    pub async fn memory_of_pods(&self) -> Option<(u64, u64)> {
        let usage = self.groups.usage(&self.root).await.ok()?;
        let limit = usage.memory_limit_bytes?;
        Some((limit.saturating_sub(usage.working_set_bytes), limit))
    }

    /// Removes a pod's group, with whatever still runs in it (`Destroy`). One without a group has none afterwards either.
    pub async fn destroy_pod_cgroup(&self, pod: &Pod) -> Result<(), CgroupError> {
        match self.pod_cgroup(pod) {
            Ok(name) => self.groups.destroy(&name).await,
            Err(_) => Ok(()),
        }
    }

    /// The groups of pods that there are (`GetAllPodsFromCgroups`).
    pub async fn pod_cgroups(&self) -> Result<HashMap<PodUid, CgroupName>, CgroupError> {
        let mut found = HashMap::new();
        for class in self.qos_cgroups() {
            let children = self.groups.children(&class).await?;
            found.extend(children.into_iter().filter_map(|name| Some((pod_uid(&name)?, name))));
        }
        Ok(found)
    }

    /// Removes the group of a pod that nobody knows.
    pub async fn destroy_orphan(&self, name: &CgroupName) -> Result<(), CgroupError> {
        self.groups.destroy(name).await
    }

    /// What is left in the group of a pod that waits to be cleaned up shall not take processor time from others
    /// (`ReduceCPULimits`).
    pub async fn reduce_cpu_limits(&self, name: &CgroupName) -> Result<(), CgroupError> {
        let config = ResourceConfig { cpu_shares: Some(MIN_SHARES), ..ResourceConfig::default() };
        self.groups.update(name, &config).await
    }
}

/// The pod that a group is for; none if it is for something else.
fn pod_uid(name: &CgroupName) -> Option<PodUid> {
    let uid = name.base()?.strip_prefix(PREFIX)?;
    (!uid.is_empty() && !uid.contains(PREFIX)).then(|| uid.into())
}
