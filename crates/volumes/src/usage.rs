//! What volumes take and have on disk (`pkg/volume/metrics_du.go`, `metrics_statfs.go`).

use std::path::{Path, PathBuf};

use coracle_core::machine::FileSystem;
use coracle_core::ports::{VolumeError, VolumeUsage};
use coracle_provider::DiskStats;
use jiff::Timestamp;
use rustix::fs::statvfs;

use crate::disk_usage::disk_usage;
use crate::error::io_error;

/// A volume that is to be measured.
pub(crate) struct Measure {
    pub(crate) volume: String,
    pub(crate) dir: PathBuf,
    /// Whether it is a file system of its own.
    pub(crate) is_file_system: bool,
    /// Whether it counts as the pod's ephemeral storage (`IsLocalEphemeralVolume`).
    pub(crate) is_ephemeral: bool,
}

impl Measure {
    /// Looks at every file, unless the volume is a file system. Blocks.
    pub(crate) fn take(self) -> Result<VolumeUsage, VolumeError> {
        let file_system = file_system(&self.dir)?;
        let DiskStats { used_bytes, inodes_used } = if self.is_file_system {
            let inodes_used = file_system.inodes.saturating_sub(file_system.inodes_free);
            DiskStats { used_bytes: file_system.used_bytes, inodes_used }
        } else {
            disk_usage(&self.dir)?
        };
        Ok(VolumeUsage {
            volume: self.volume,
            at: Timestamp::now(),
            used_bytes,
            inodes_used,
            file_system,
            is_ephemeral: self.is_ephemeral,
        })
    }
}

/// The file system that a folder is in (`fs.Info`).
fn file_system(path: &Path) -> Result<FileSystem, VolumeError> {
    let failed = |error| io_error("measure", path, error);
    let stat = statvfs(path).map_err(failed)?;
    let device = rustix::fs::stat(path).map_err(failed)?.st_dev;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(FileSystem {
        device,
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}
