//! How much disk a directory takes that containers write to (`pkg/volume/util/fs`).

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_core::ports::VolumeError;
use coracle_provider::DiskStats;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::error::io_error;

/// Directories below this depth are not looked into: each level takes a descriptor. Only somebody who means to hide
/// something nests them deeper, so such a tree counts as larger than any limit.
const MAX_DEPTH: usize = 128;
/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

/// The bytes and inodes on disk of a directory and everything in it, as `du` counts them: no link is followed, no other file system
/// is entered, and a file with several names counts once. One that is not there takes nothing. Blocks.
pub(crate) fn disk_usage(path: &Path) -> Result<DiskStats, VolumeError> {
    let top = match open_dir(CWD, path.as_os_str().as_encoded_bytes()) {
        Err(Errno::NOENT) => return Ok(DiskStats::default()),
        result => result.map_err(|error| io_error("count", path, error))?,
    };
    let count = || {
        let stat = fstat(&top)?;
        let mut counter = Counter { device: stat.st_dev, used: DiskStats::default(), seen: HashSet::new() };
        counter.add(&stat);
        counter.walk(top.as_fd(), 0)?;
        Ok(counter.used)
    };
    count().map_err(|error: Errno| io_error("count", path, error))
}

struct Counter {
    device: u64,
    used: DiskStats,
    /// Files with several names.
    seen: HashSet<u64>,
}

impl Counter {
    fn add(&mut self, stat: &Stat) {
        let has_one_name = stat.st_nlink <= 1 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if has_one_name || self.seen.insert(stat.st_ino) {
            let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
            self.used.used_bytes = self.used.used_bytes.saturating_add(blocks.saturating_mul(BLOCK));
            self.used.inodes_used = self.used.inodes_used.saturating_add(1);
        }
    }

    fn walk(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            // What has gone meanwhile takes nothing.
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                result => result?,
            };
            if stat.st_dev != self.device {
                continue;
            }
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            if depth == MAX_DEPTH {
                self.used.used_bytes = u64::MAX;
                continue;
            }
            match open_dir(dir, name) {
                // It has gone, or is something else by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                result => self.walk(result?.as_fd(), depth + 1)?,
            }
        }
        Ok(())
    }
}

fn open_dir(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn everything_in_a_directory_counts_once_and_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, outside) = (folder.path().join("dir"), folder.path().join("outside"));
        assert_eq!(disk_usage(&dir).unwrap(), DiskStats::default());
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(&outside, vec![1; 1 << 20]).unwrap();
        let empty = disk_usage(&dir).unwrap().used_bytes;
        assert!(empty < 1 << 16, "{empty}");

        fs::write(dir.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.join("a/b/file"), dir.join("again")).unwrap();
        symlink(&outside, dir.join("link")).unwrap();
        symlink(folder.path(), dir.join("loop")).unwrap();
        let used = disk_usage(&dir).unwrap();
        assert_eq!(used.inodes_used, 6, "three directories, a file with two names, two links");
        let grown = used.used_bytes - empty;
        assert!((1 << 20..(1 << 20) + (1 << 16)).contains(&grown), "{grown}");

        // Holes take nothing.
        fs::File::create(dir.join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(disk_usage(&dir).unwrap().used_bytes < 2 << 20);
    }

    #[test]
    fn a_tree_that_is_deeper_than_it_can_be_counted_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let deep = vec!["d"; MAX_DEPTH + 2].join("/");
        fs::create_dir_all(folder.path().join(deep)).unwrap();
        assert_eq!(disk_usage(folder.path()).unwrap().used_bytes, u64::MAX);
    }
}
