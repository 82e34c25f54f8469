//! One hierarchy for all controllers (upstream: `cgroup_v2_manager_linux.go`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_core::cm::ResourceConfig;
use coracle_core::ports::{CgroupError, CgroupUsage};

use super::v1::pids_text;
use super::{Result, files, huge_pages};
use crate::error::NodeError;

/// What the kubelet needs of a group, as far as the kernel has it (`getSupportedUnifiedControllers`).
const NEEDED: [&str; 5] = ["cpu", "cpuset", "memory", "hugetlb", "pids"];
const CONTROLLERS: &str = "cgroup.controllers";
const DEFAULT_PERIOD: i64 = 100_000;

pub(super) struct V2 {
    root: PathBuf,
    /// What the kernel has.
    available: BTreeSet<String>,
}

impl V2 {
    pub(super) fn new(root: impl Into<PathBuf>) -> Result<Self, NodeError> {
        let root = root.into();
        let found = controllers(&root);
        let path = root.join(CONTROLLERS);
        let available = found.map_err(|error| match error {
            CgroupError::Io { path, error } => NodeError::Read { path, error },
            error => NodeError::Read { path, error: io::Error::other(error.to_string()) },
        })?;
        let missing = ["cpu", "memory"].into_iter().find(|name| !available.contains(*name));
        match missing {
            None => Ok(Self { root, available }),
            Some(controller) => Err(NodeError::NoCgroups { controller }),
        }
    }

    pub(super) fn folder(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn missing(&self, path: &str) -> Option<String> {
        let enabled = match controllers(&self.folder(path)) {
            Ok(enabled) => enabled,
            Err(error) => return Some(format!("has no controllers: {error}")),
        };
        let needed = NEEDED.into_iter().filter(|name| self.available.contains(*name));
        let missing: Vec<&str> = needed.filter(|name| !enabled.contains(*name)).collect();
        (!missing.is_empty()).then(|| format!("has some missing controllers: {}", missing.join(", ")))
    }

    /// Each group hands the controllers on to those below, as far as it can: what is missing in the end is told where it is
    /// needed (`CreateCgroupPath`).
    pub(super) fn create(&self, path: &str) -> Result<()> {
        let mut folder = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            for controller in &self.available {
                if let Err(error) = files::write(&folder, "cgroup.subtree_control", format!("+{controller}"))
                {
                    tracing::debug!(%error, controller, "a controller cannot be handed on");
                }
            }
            folder.push(part);
            files::make(&folder)?;
        }
        Ok(())
    }

    pub(super) fn update(&self, path: &str, resources: &ResourceConfig) -> Result<()> {
        let folder = self.folder(path);
        if let Some(limit) = resources.memory.filter(|limit| *limit != 0) {
            let text = if limit < 0 { "max".to_owned() } else { limit.to_string() };
            files::write(&folder, "memory.max", text)?;
        }
        if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
            files::write(&folder, "cpu.weight", shares_to_weight(shares))?;
        }
        let (quota, period) = (resources.cpu_quota.unwrap_or(0), resources.cpu_period.unwrap_or(0));
        if quota != 0 || period != 0 {
            let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
            let period = if period > 0 { period } else { DEFAULT_PERIOD };
            files::write(&folder, "cpu.max", format!("{quota} {period}"))?;
        }
        if let Some(pids) = resources.pids {
            files::write(&folder, "pids.max", pids_text(pids))?;
        }
        if let Some(limits) = resources.huge_pages.as_ref().filter(|_| self.available.contains("hugetlb")) {
            huge_pages::limit(&folder, limits, "max")?;
        }
        Ok(())
    }

    pub(super) fn usage(&self, path: &str) -> Result<CgroupUsage> {
        let folder = self.folder(path);
        let (working_set_bytes, memory_limit_bytes) = files::memory(
            files::read_number(&folder, "memory.current")?,
            files::read_field(&folder, "memory.stat", "inactive_file")?,
            files::read_number(&folder, "memory.max")?,
        );
        let has_pids = self.available.contains("pids");
        let processes = if has_pids { files::read_number(&folder, "pids.current")? } else { 0 };
        let processes = u64::try_from(processes).unwrap_or_default();
        Ok(CgroupUsage { working_set_bytes, memory_limit_bytes, processes })
    }

    pub(super) fn config(&self, path: &str) -> Result<ResourceConfig> {
        const FILE: &str = "cpu.max";
        let folder = self.folder(path);
        let text = files::read(&folder, FILE)?;
        let nonsense = || CgroupError::Io {
            path: folder.join(FILE),
            error: io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no quota and period")),
        };
        let (quota, period) = text.split_once(' ').ok_or_else(nonsense)?;
        let quota = if quota == "max" { Ok(-1) } else { quota.parse() };
        Ok(ResourceConfig {
            memory: Some(files::read_number(&folder, "memory.max")?),
            cpu_shares: Some(weight_to_shares(files::read_number(&folder, "cpu.weight")?)),
            cpu_quota: Some(quota.map_err(|_| nonsense())?),
            cpu_period: Some(period.parse().map_err(|_| nonsense())?),
            ..ResourceConfig::default()
        })
    }
}

fn controllers(folder: &Path) -> Result<BTreeSet<String>> {
    Ok(files::read(folder, CONTROLLERS)?.split_whitespace().map(str::to_owned).collect())
}

/// From 2 to 262144 to 1 to 10000 (`getCPUWeight`).
pub(super) fn shares_to_weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// `cpuWeightToCPUShares`.
fn weight_to_shares(weight: i64) -> i64 {
    (weight.clamp(1, 10_000) - 1) * 262_142 / 9999 + 2
}
