//! Files and directories of the node (`pkg/volume/hostpath`).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::error::io_error;

/// The real path of a hostPath volume, made if its type says so. Refuses whatever would show a container the
/// kubelet's own state: the root directory, anything in it, and anything that it is in.
pub(crate) fn resolve(source: &HostPathVolumeSource, root: &Path) -> Result<PathBuf, VolumeError> {
    let path = Path::new(&source.path);
    if !path.is_absolute() {
        return Err(VolumeError::Invalid(format!("hostPath {:?} is not absolute", source.path)));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(VolumeError::Invalid(format!("hostPath {:?} must not contain '..'", source.path)));
    }
    let wanted = Wanted::parse(source.type_.as_deref().unwrap_or_default())?;
    let real = real_path(path).map_err(|e| io_error("resolve hostPath", path, e))?;
    refuse_own_state(&real, root)?;
    if wanted.create(&real).map_err(|e| io_error("create hostPath", &real, e))? {
        // What was missing a moment ago could have become a link meanwhile.
        let created = fs::canonicalize(&real).map_err(|e| io_error("resolve hostPath", &real, e))?;
        refuse_own_state(&created, root)?;
        return Ok(created);
    }
    wanted.check(&real)?;
    Ok(real)
}

fn refuse_own_state(real: &Path, root: &Path) -> Result<(), VolumeError> {
    if real.starts_with(root) || root.starts_with(real) {
        return Err(VolumeError::Invalid(format!(
            "hostPath {} would show the kubelet's own state in {}; use another directory",
            real.display(),
            root.display()
        )));
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match fs::canonicalize(existing) {
            Ok(mut real) => {
                real.extend(missing.iter().rev());
                return Ok(real);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match (existing.parent(), existing.file_name()) {
                    (Some(parent), Some(name)) => {
                        missing.push(name);
                        existing = parent;
                    }
                    _ => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// What must be at the path (`HostPathType`).
enum Wanted {
    Anything,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Wanted {
    fn parse(host_path_type: &str) -> Result<Self, VolumeError> {
        match host_path_type {
            "" => Ok(Self::Anything),
            "DirectoryOrCreate" => Ok(Self::DirectoryOrCreate),
            "Directory" => Ok(Self::Directory),
            "FileOrCreate" => Ok(Self::FileOrCreate),
            "File" => Ok(Self::File),
            "Socket" => Ok(Self::Socket),
            "CharDevice" => Ok(Self::CharDevice),
            "BlockDevice" => Ok(Self::BlockDevice),
            other => Err(VolumeError::Invalid(format!("{other:?} is not a type of hostPath"))),
        }
    }

    /// Makes what is missing, and says whether it did. With no type given, container runtimes make a directory.
    fn create(&self, path: &Path) -> io::Result<bool> {
        if fs::symlink_metadata(path).is_ok() {
            return Ok(false);
        }
        match self {
            Self::Anything | Self::DirectoryOrCreate => {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
            }
            Self::FileOrCreate => {
                fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self, path: &Path) -> Result<(), VolumeError> {
        let found = fs::symlink_metadata(path)
            .map_err(|e| VolumeError::NotReady(format!("hostPath {}: {e}", path.display())))?
            .file_type();
        let (matches, expected) = match self {
            // After the path was resolved, a link that is left leads nowhere.
            Self::Anything => (!found.is_symlink(), "file or directory"),
            Self::DirectoryOrCreate | Self::Directory => (found.is_dir(), "directory"),
            Self::FileOrCreate | Self::File => (found.is_file(), "file"),
            Self::Socket => (found.is_socket(), "socket file"),
            Self::CharDevice => (found.is_char_device(), "character device"),
            Self::BlockDevice => (found.is_block_device(), "block device"),
        };
        if matches {
            return Ok(());
        }
        Err(VolumeError::NotReady(format!(
            "hostPath type check failed: {} is not a {expected}, it is a {}",
            path.display(),
            name_of(found)
        )))
    }
}

fn name_of(file_type: fs::FileType) -> &'static str {
    match file_type {
        t if t.is_dir() => "directory",
        t if t.is_file() => "file",
        t if t.is_socket() => "socket file",
        t if t.is_char_device() => "character device",
        t if t.is_block_device() => "block device",
        t if t.is_fifo() => "named pipe",
        t if t.is_symlink() => "link to nothing",
        _ => "file of another kind",
    }
}
