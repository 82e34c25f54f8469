//! Who keeps the control groups of pods (upstream: `containerManagerImpl` in `container_manager_linux.go`).

use std::sync::Arc;

use tokio::sync::Mutex;

use super::name::CgroupName;
use super::node_allocatable::NodeAllocatable;
use crate::ports::{CgroupError, CgroupManager};

/// The group of all pods, below the root that was configured (`defaultNodeAllocatableCgroupName`).
const PODS: &str = "kubepods";

/// How control groups are to be.
#[derive(Clone, Debug)]
pub struct ContainerManagerOptions {
    /// `cgroupRoot`.
    pub cgroup_root: CgroupName,
    /// `cgroupsPerQOS`: whether pods have groups of their own at all.
    pub cgroups_per_qos: bool,
    /// `podPidsLimit`: processes and threads of a pod; none is no limit.
    pub pod_pids_limit: Option<i64>,
    /// `cpuCFSQuota`: whether processor time is limited.
    pub enforce_cpu_limits: bool,
    /// `cpuCFSQuotaPeriod`, in microseconds.
    pub cpu_quota_period: i64,
    /// What of the machine is for pods.
    pub node_allocatable: NodeAllocatable,
}

/// Keeps control groups. It remembers nothing: the kernel does.
pub struct ContainerManager {
    pub(super) groups: Arc<dyn CgroupManager>,
    pub(super) options: ContainerManagerOptions,
    /// The group of all pods.
    pub(super) root: CgroupName,
    /// Weights of classes are summed up and written by one at a time (`qosContainerManagerImpl.Mutex`).
    pub(super) updating_qos: Mutex<()>,
}

impl ContainerManager {
    /// Puts one together. Nothing is made yet.
    pub fn new(groups: Arc<dyn CgroupManager>, options: ContainerManagerOptions) -> Self {
        let root = match options.cgroups_per_qos {
            true => options.cgroup_root.child(PODS),
            false => options.cgroup_root.clone(),
        };
        Self { groups, options, root, updating_qos: Mutex::default() }
    }

    /// Whether pods have groups of their own.
    pub fn has_pod_cgroups(&self) -> bool {
        self.options.cgroups_per_qos
    }

    /// Makes what pods' groups are made in (`setupNode`).
    pub async fn start(&self) -> Result<(), CgroupError> {
        if !self.has_pod_cgroups() {
            return Ok(());
        }
        self.groups.validate(&self.options.cgroup_root).await?;
        if self.groups.validate(&self.root).await.is_err() {
            self.groups.create(&self.root, &self.options.node_allocatable.limits_of_pods()).await?;
        }
        self.create_qos_cgroups().await
    }

    /// Holds all pods to what is for them. Fails as long as they use more memory than that.
    pub async fn enforce_node_allocatable(&self) -> Result<(), String> {
        if self.root == CgroupName::ROOT {
            return Ok(());
        }
        let updated = self.groups.update(&self.root, &self.options.node_allocatable.limits_of_pods()).await;
        updated.map_err(|error| format!("Failed to update Node Allocatable Limits {}: {error}", self.root))
    }

    /// Holds to its share what is no pod. Answers what to tell of it (`enforceNodeAllocatableCgroups`).
    pub async fn enforce_reservations(&self) -> Result<Vec<String>, String> {
        let mut done = Vec::new();
        for (cgroup, limits, what) in self.options.node_allocatable.limits_of_others() {
            let name = CgroupName::parse(cgroup, self.groups.driver());
            let enforce = async {
                self.groups.validate(&name).await?;
                self.groups.update(&name, &limits).await
            };
            let failed = |error| format!("Failed to enforce {what} cgroup limits on {cgroup:?}: {error}");
            enforce.await.map_err(failed)?;
            done.push(format!("Updated limits on {what} cgroup {cgroup}"));
        }
        Ok(done)
    }
}
