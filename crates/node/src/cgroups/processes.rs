//! Processes that are left in a group which is to go (upstream: `tryKillingCgroupProcesses`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_core::ports::CgroupError;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::{Result, files};

const PROCESSES: &str = "cgroup.procs";

/// Ends all processes in these groups and those below them. They may still be there when this returns, as zombies.
pub(super) fn kill_all(folders: &[PathBuf]) -> Result<()> {
    let mut found = BTreeSet::new();
    for folder in folders {
        collect(folder, &mut found)?;
    }
    for pid in found.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        tracing::warn!(pid = pid.as_raw_nonzero(), "ending a process that is left of a pod");
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                return Err(CgroupError::Io {
                    path: format!("/proc/{}", pid.as_raw_nonzero()).into(),
                    error: error.into(),
                });
            }
        }
    }
    Ok(())
}

fn collect(folder: &Path, found: &mut BTreeSet<i32>) -> Result<()> {
    match files::read(folder, PROCESSES) {
        // 0 is a process of another namespace, which cannot be named here.
        Ok(text) => {
            found.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0))
        }
        Err(CgroupError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    for child in files::folders_in(folder)? {
        collect(&folder.join(child), found)?;
    }
    Ok(())
}
