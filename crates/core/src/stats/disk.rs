//! What files take of the disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_provider::DiskStats;

/// Blocks of `stat` have this size, whatever the file system's own are.
const STAT_BLOCK: u64 = 512;

/// A container's log and what rotation made of earlier ones, which have its name and more
/// (`getPodContainerLogStats`). Blocks the thread.
pub(super) fn log_files(log: &Path) -> io::Result<DiskStats> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // `0.log`, `0.log.20261101-120000.gz`; not `0.log` of `10.log`.
    let is_log = |other: &std::ffi::OsStr| other.as_encoded_bytes().starts_with(name.as_encoded_bytes());
    let mut stats = DiskStats::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_log(&entry.file_name()) {
            continue;
        }
        // It may have been removed just now.
        let Ok(metadata) = entry.metadata() else { continue };
        stats.used_bytes = stats.used_bytes.saturating_add(metadata.blocks().saturating_mul(STAT_BLOCK));
        stats.inodes_used += 1;
    }
    Ok(stats)
}
