//! Removes a directory tree that containers have written to.
//!
//! Nothing outside of the tree is touched, whatever the tree holds: links are removed, never followed; what is mounted
//! in the tree is unmounted, never entered. The depth of the tree costs neither stack nor file descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_core::ports::VolumeError;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmod, fchmod, fstat, openat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::io_error;

/// Directories below this depth are first moved up to the top: a container can nest them deeper than a stack or the
/// limit on open files allows.
const MAX_DEPTH: usize = 32;

/// Removes a directory and everything in it; one that is not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    let failed = |error: Errno| io_error("remove", path, error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let parent = match openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(()),
        result => result.map_err(failed)?,
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| failed(Errno::INVAL))?;
    let top = match open_dir(parent.as_fd(), &name) {
        Err(Errno::NOENT) => return Ok(()),
        result => result.map_err(failed)?,
    };
    let mut remover = Remover { top: top.as_fd(), moved: 0 };
    loop {
        let moved = remover.moved;
        remover.empty(top.as_fd(), 0).map_err(failed)?;
        if remover.moved == moved {
            break;
        }
    }
    unlinkat(&parent, &name, AtFlags::REMOVEDIR).map_err(failed)
}

struct Remover<'a> {
    top: BorrowedFd<'a>,
    /// How many directories were moved up.
    moved: u64,
}

impl Remover<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => self.remove_dir(dir, name, depth)?,
                FileType::Unknown => match self.remove_file(dir, name) {
                    Err(Errno::ISDIR) => self.remove_dir(dir, name, depth)?,
                    result => result?,
                },
                _ => self.remove_file(dir, name)?,
            }
        }
        Ok(())
    }

    fn remove_file(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            match unlinkat(dir, name, AtFlags::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => unmount_at(dir, name)?,
                result => return result,
            }
        }
    }

    fn remove_dir(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        let child = open_dir(dir, name)?;
        if depth >= MAX_DEPTH {
            return self.move_up(dir, name);
        }
        self.empty(child.as_fd(), depth + 1)?;
        unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    /// Moves a directory to the top, where the next round finds it.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            match renameat(dir, name, self.top, format!(".moved-{}", self.moved)) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                result => return result,
            }
        }
    }
}

/// Opens a directory that is to be emptied; unmounts it first if something is mounted there.
fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match openat2(parent, name, flags, Mode::empty(), resolve) {
            Err(Errno::XDEV) => unmount_at(parent, name)?,
            Err(Errno::ACCESS) => {
                let closed = openat2(parent, name, flags | OFlags::PATH, Mode::empty(), resolve)?;
                // There is no other way to change what one may not open.
                chmod(format!("/proc/self/fd/{}", closed.as_raw_fd()), Mode::RWXU)?;
                return openat2(parent, name, flags, Mode::empty(), resolve);
            }
            Ok(dir) => {
                // An agent that is not root needs the permissions that a container may have taken from itself.
                if fstat(&dir)?.st_mode & 0o700 != 0o700 {
                    fchmod(&dir, Mode::RWXU)?;
                }
                return Ok(dir);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes a mount out of the tree at once; it ends when nobody uses it any more.
fn unmount_at(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}
