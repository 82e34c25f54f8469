//! Finds a subPath in a volume without leaving it (`pkg/volume/util/subpath`).
//!
//! Containers of the pod may be writing to the volume at this very moment, so nothing is done by name twice: every
//! step goes from an open directory to the next, and the kernel refuses a link that leads out of the volume.
//!
//! The result is an open file; [`real_path`] tells the path at which it was found, with all links resolved. Whoever opens
//! that path later must not follow links (`RESOLVE_NO_SYMLINKS`): a container can have put one there meanwhile. A
//! runtime that cannot be told so needs a bind mount of the open file under `volume-subpaths` instead, which is what
//! upstream's `PrepareSafeSubpath` makes.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_core::ports::VolumeError;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;

use crate::error::io_error;

/// The kernel answers `EAGAIN` when something was renamed during a look-up.
const MAX_RENAMES: usize = 16;

/// Whether a subPath may be one: relative, and without `..`.
pub(crate) fn validate(sub_path: &str) -> Result<(), VolumeError> {
    if sub_path.starts_with('/') {
        return Err(VolumeError::Invalid(format!("subPath {sub_path:?} must not be an absolute path")));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(VolumeError::Invalid(format!("subPath {sub_path:?} must not contain '..'")));
    }
    Ok(())
}

/// Opens a subPath of a volume (`O_PATH`). What is missing is made, as directories with the permissions of the volume
/// itself (`SafeMakeDir`). `volume` must be a real path that only the agent can change.
pub(crate) fn open(volume: &Path, sub_path: &str) -> Result<OwnedFd, VolumeError> {
    validate(sub_path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = openat(CWD, volume, flags, Mode::empty()).map_err(|e| io_error("open", volume, e))?;
    let opened = match open_beneath(&base, Path::new(sub_path)) {
        Err(Errno::NOENT) => make_dirs(&base, sub_path),
        result => result,
    };
    opened.map_err(|error| match error {
        Errno::XDEV => {
            VolumeError::Invalid(format!("subPath {sub_path:?} leads out of the volume through a link"))
        }
        error => VolumeError::Io(format!("cannot open subPath {sub_path:?}: {error}")),
    })
}

/// Where an open subPath of a volume is, without links.
pub(crate) fn real_path(file: &OwnedFd, volume: &Path) -> Result<PathBuf, VolumeError> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|e| io_error("find a subPath in", volume, e))?;
    if !path.starts_with(volume) {
        let message = format!("a subPath of {} was moved out of it", volume.display());
        return Err(VolumeError::Io(message));
    }
    Ok(path)
}

/// Links are followed as long as they stay in the volume.
fn open_beneath(base: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut renames = 0;
    loop {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(base, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if renames < MAX_RENAMES => renames += 1,
            result => return result,
        }
    }
}

fn make_dirs(base: &OwnedFd, sub_path: &str) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(fstat(base)?.st_mode & 0o7777);
    let mut existing = PathBuf::new();
    let mut parts = sub_path.split('/').filter(|part| !matches!(*part, "" | ".")).peekable();
    let mut dir = open_beneath(base, Path::new("."))?;
    while let Some(part) = parts.peek() {
        match open_beneath(base, &existing.join(part)) {
            Ok(next) => dir = next,
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error),
        }
        existing.push(part);
        parts.next();
    }
    for part in parts {
        // A link to nothing is not followed: that would make its target.
        let made = match mkdirat(&dir, part, mode) {
            Err(Errno::EXIST) => false,
            result => result.map(|()| true)?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = openat(&dir, part, flags, Mode::empty())?;
        if made {
            // mkdirat was subject to the umask.
            fchmod(&dir, mode)?;
        }
    }
    Ok(dir)
}
