//! Gives a volume to the pod's `fsGroup` (`pkg/volume/volume_linux.go`).

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use coracle_core::ports::VolumeError;

use crate::error::io_error;

/// The permissions that `fsGroup` adds to a file or directory (`changeFilePermission`).
pub(crate) fn group_permissions(is_dir: bool, read_only: bool) -> u32 {
    const SETGID_AND_SEARCH: u32 = 0o2110;
    let access = if read_only { 0o440 } else { 0o660 };
    if is_dir { access | SETGID_AND_SEARCH } else { access }
}

/// Gives everything in a volume to a group. Nobody but the agent may write to the volume meanwhile: paths are
/// followed by name.
pub(crate) fn set_volume_ownership(dir: &Path, fs_group: u32, read_only: bool) -> Result<(), VolumeError> {
    give_to_group(dir, fs_group, read_only)
        .map_err(|error| io_error(&format!("give to the group {fs_group}"), dir, error))
}

fn give_to_group(path: &Path, fs_group: u32, read_only: bool) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_group(&entry?.path(), fs_group, read_only)?;
        }
    }
    lchown(path, None, Some(fs_group))?;
    if metadata.is_symlink() {
        // A link has no mode of its own: this would change what it points to.
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    let mode = mode | group_permissions(metadata.is_dir(), read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
