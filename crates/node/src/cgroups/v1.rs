//! A hierarchy for each controller (upstream: `cgroup_v1_manager_linux.go`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_core::cm::ResourceConfig;
use coracle_core::ports::{CgroupError, CgroupUsage};

use super::mounts::Mounts;
use super::{Result, files, huge_pages};
use crate::error::NodeError;

/// A group without one of these is none; others do not count (`Validate`).
const REQUIRED: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "systemd", "pids", "hugetlb"];

pub(super) struct V1 {
    mounts: Mounts,
}

impl V1 {
    pub(super) fn new(mounts: Mounts) -> Result<Self, NodeError> {
        let missing = ["cpu", "memory"].into_iter().find(|name| !mounts.contains_key(*name));
        match missing {
            None => Ok(Self { mounts }),
            Some(controller) => Err(NodeError::NoCgroups { controller }),
        }
    }

    /// Where a group is, once for each hierarchy.
    pub(super) fn folders(&self, path: &str) -> Vec<PathBuf> {
        let mounts: BTreeSet<&PathBuf> = self.mounts.values().collect();
        mounts.into_iter().map(|mount| below(mount, path)).collect()
    }

    pub(super) fn missing(&self, path: &str) -> Option<String> {
        let required = REQUIRED.iter().filter_map(|name| self.mounts.get(*name));
        let folders: BTreeSet<String> = required
            .map(|mount| below(mount, path))
            .filter(|folder| !folder.exists())
            .map(|folder| folder.display().to_string())
            .collect();
        (!folders.is_empty()).then(|| {
            format!("has some missing paths: {}", folders.into_iter().collect::<Vec<_>>().join(", "))
        })
    }

    pub(super) fn create(&self, path: &str) -> Result<()> {
        let cpuset = self.mounts.get("cpuset");
        let mounts: BTreeSet<&PathBuf> = self.mounts.values().collect();
        for mount in mounts {
            let mut folder = mount.clone();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                let parent = folder.clone();
                folder.push(part);
                files::make(&folder)?;
                if cpuset == Some(mount) {
                    inherit_cpuset(&parent, &folder)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn update(&self, path: &str, resources: &ResourceConfig) -> Result<()> {
        if let Some(folder) = self.folder("memory", path) {
            set_memory(&folder, resources)?;
        }
        if let Some(folder) = self.folder("cpu", path) {
            set_cpu(&folder, resources)?;
        }
        if let (Some(folder), Some(pids)) = (self.folder("pids", path), resources.pids) {
            files::write(&folder, "pids.max", pids_text(pids))?;
        }
        if let (Some(folder), Some(limits)) = (self.folder("hugetlb", path), &resources.huge_pages) {
            huge_pages::limit(&folder, limits, "limit_in_bytes")?;
        }
        Ok(())
    }

    pub(super) fn config(&self, path: &str) -> Result<ResourceConfig> {
        // `new` has seen to it that there are both.
        let folder = |name| self.folder(name, path).unwrap_or_default();
        let (memory, cpu) = (folder("memory"), folder("cpu"));
        Ok(ResourceConfig {
            memory: Some(files::read_number(&memory, "memory.limit_in_bytes")?),
            cpu_shares: Some(files::read_number(&cpu, "cpu.shares")?),
            cpu_quota: Some(files::read_number(&cpu, "cpu.cfs_quota_us")?),
            cpu_period: Some(files::read_number(&cpu, "cpu.cfs_period_us")?),
            ..ResourceConfig::default()
        })
    }

    pub(super) fn usage(&self, path: &str) -> Result<CgroupUsage> {
        let folder = self.folder("memory", path).unwrap_or_default();
        let (working_set_bytes, memory_limit_bytes) = files::memory(
            files::read_number(&folder, "memory.usage_in_bytes")?,
            files::read_field(&folder, "memory.stat", "total_inactive_file")?,
            files::read_number(&folder, "memory.limit_in_bytes")?,
        );
        let pids = self.folder("pids", path).map(|folder| files::read_number(&folder, "pids.current"));
        let processes = u64::try_from(pids.transpose()?.unwrap_or_default()).unwrap_or_default();
        Ok(CgroupUsage { working_set_bytes, memory_limit_bytes, processes })
    }

    fn folder(&self, controller: &str, path: &str) -> Option<PathBuf> {
        Some(below(self.mounts.get(controller)?, path))
    }
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// How a limit of processes is written, in both versions; 0 would be one that systemd does not take.
pub(super) fn pids_text(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        limit if limit > 0 => limit.to_string(),
        _ => "max".to_owned(),
    }
}

/// A new group of processors has none, and nothing can run in it (`cpusetCopyIfNeeded`).
fn inherit_cpuset(parent: &Path, folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if files::read(folder, file)?.is_empty() {
            files::write(folder, file, files::read(parent, file)?)?;
        }
    }
    Ok(())
}

fn set_memory(folder: &Path, resources: &ResourceConfig) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    let Some(limit) = resources.memory.filter(|limit| *limit != 0) else { return Ok(()) };
    let Err(CgroupError::Io { path, error }) = files::write(folder, LIMIT, limit) else { return Ok(()) };
    if error.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error()) {
        return Err(CgroupError::Io { path, error });
    }
    let usage = files::read_number(folder, "memory.usage_in_bytes")?;
    let peak = files::read_number(folder, "memory.max_usage_in_bytes")?;
    let text = format!("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})");
    Err(CgroupError::Io { path, error: io::Error::new(error.kind(), text) })
}

/// A shorter period may only go with the new quota, and a longer one with the old: what the kernel refuses at first is
/// tried again after the quota (`CpuGroup.Set`).
fn set_cpu(folder: &Path, resources: &ResourceConfig) -> Result<()> {
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
        files::write(folder, "cpu.shares", shares)?;
    }
    let quota = resources.cpu_quota.filter(|quota| *quota != 0);
    let set_period = || match resources.cpu_period.filter(|period| *period != 0) {
        Some(period) => files::write(folder, "cpu.cfs_period_us", period),
        None => Ok(()),
    };
    let period_first = set_period();
    let Some(quota) = quota else { return period_first };
    files::write(folder, "cpu.cfs_quota_us", quota)?;
    if period_first.is_err() { set_period() } else { Ok(()) }
}
