//! Control groups of this machine.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::cm::{CgroupDriver, CgroupName, ResourceConfig};

/// Why a control group is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// It is not there, or not in every hierarchy.
    #[error("cgroup {name} {problem}")]
    Invalid {
        /// The group.
        name: CgroupName,
        /// What is missing.
        problem: String,
    },
    /// The kernel refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// systemd refused.
    #[error("systemd: {0}")]
    Systemd(String),
}

/// What a control group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Memory in bytes, without files that nobody used lately.
    pub working_set_bytes: u64,
    /// What it may use, in bytes; none without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: u64,
}

/// Makes, limits and removes control groups (upstream: `CgroupManager` in `pkg/kubelet/cm/types.go`).
#[async_trait]
pub trait CgroupManager: Send + Sync {
    /// Who makes them, and so how they are called.
    fn driver(&self) -> CgroupDriver;

    /// Whether a group is there with all that the kernel offers; what is missing if not.
    async fn validate(&self, name: &CgroupName) -> Result<(), CgroupError>;

    /// Makes a group and those above it, and limits it. One that is there is only limited. What cannot be limited is
    /// told in the log: the group is there.
    async fn create(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<(), CgroupError>;

    /// Limits a group that is there.
    async fn update(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<(), CgroupError>;

    /// Ends every process in a group and those below, and removes them. One that is not there is removed.
    async fn destroy(&self, name: &CgroupName) -> Result<(), CgroupError>;

    /// The groups right below one, in any hierarchy; none if it is not there.
    async fn children(&self, name: &CgroupName) -> Result<Vec<CgroupName>, CgroupError>;

    /// What a group and those below it use.
    async fn usage(&self, name: &CgroupName) -> Result<CgroupUsage, CgroupError>;

    /// Memory limit, shares, quota and period that are in force. An unlimited quota is -1.
    async fn config(&self, name: &CgroupName) -> Result<ResourceConfig, CgroupError>;
}
