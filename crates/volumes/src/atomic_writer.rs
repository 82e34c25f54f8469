//! Writes a set of files so that a reader sees all of the old or all of the new ones
//! (`pkg/volume/util/atomic_writer.go`).
//!
//! What a container sees are links through one link that is replaced by a rename:
//!
//! ```text
//! token  -> ..data/token
//! ..data -> ..2026_11_30_12_00_00.1234567890
//! ..2026_11_30_12_00_00.1234567890/token
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use coracle_core::clock;
use coracle_core::ports::VolumeError;

use crate::error::io_error;
use crate::payload::{FileProjection, Payload};

const DATA_DIR: &str = "..data";
const NEW_DATA_DIR: &str = "..data_tmp";
/// Directories in the volume must let everybody through, whatever the agent's umask is.
const DIR_MODE: u32 = 0o755;
const MAX_FILE_NAME_LENGTH: usize = 255;
const MAX_PATH_LENGTH: usize = 4096;

/// Writes into one volume. Only one writer may be at work on a volume.
pub(crate) struct AtomicWriter<'a> {
    target: &'a Path,
    /// Whether files can be given to other users.
    may_chown: bool,
}

impl<'a> AtomicWriter<'a> {
    /// A writer for a directory that exists.
    pub(crate) fn new(target: &'a Path, may_chown: bool) -> Self {
        Self { target, may_chown }
    }

    /// Makes the volume hold exactly these files, and says whether anything was written. `set_permissions` runs
    /// before new files become visible.
    pub(crate) fn write(
        &self,
        payload: &Payload,
        set_permissions: impl FnOnce() -> Result<(), VolumeError>,
    ) -> Result<bool, VolumeError> {
        let data_dir = self.target.join(DATA_DIR);
        let old = match fs::read_link(&data_dir) {
            Ok(name) => Some(name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("read", &data_dir, e)),
        };
        let is_current = old.is_some_and(|old| holds(&self.target.join(old), payload).unwrap_or(false));
        if !is_current {
            self.publish(payload, set_permissions)?;
        }
        self.link_visible_files(payload)?;
        self.remove_leftovers(payload)?;
        Ok(!is_current)
    }

    /// Writes the files to a new directory and makes `..data` point to it.
    fn publish(
        &self,
        payload: &Payload,
        set_permissions: impl FnOnce() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let (name, dir) = self.new_timestamp_dir()?;
        let result = self.write_files(&dir, payload).and_then(|()| set_permissions()).and_then(|()| {
            let new_link = self.target.join(NEW_DATA_DIR);
            // One may be left from an agent that died between the next two lines.
            let _ = fs::remove_file(&new_link);
            symlink(&name, &new_link).map_err(|e| io_error("create", &new_link, e))?;
            fs::rename(&new_link, self.target.join(DATA_DIR)).map_err(|e| io_error("rename", &new_link, e))
        });
        if result.is_err() {
            // The error that is being reported matters more than this one, and the next write cleans up too.
            let _ = fs::remove_dir_all(&dir);
        }
        result
    }

    fn new_timestamp_dir(&self) -> Result<(String, PathBuf), VolumeError> {
        let stamp = clock::now().strftime("..%Y_%m_%d_%H_%M_%S");
        loop {
            let name = format!("{stamp}.{:010}", rand::random::<u32>());
            let dir = self.target.join(&name);
            match make_dir(&dir) {
                Ok(()) => return Ok((name, dir)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create", &dir, e)),
            }
        }
    }

    fn write_files(&self, dir: &Path, payload: &Payload) -> Result<(), VolumeError> {
        for (path, file) in payload {
            for parent in parents(path) {
                match make_dir(&dir.join(parent)) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(io_error("create", &dir.join(parent), e));
                    }
                    _ => {}
                }
            }
            let path = dir.join(path);
            self.write_file(&path, file).map_err(|e| io_error("write", &path, e))?;
        }
        Ok(())
    }

    fn write_file(&self, path: &Path, projection: &FileProjection) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&projection.data)?;
        if self.may_chown && projection.user.is_some() {
            fchown(&file, projection.user, None)?;
        }
        file.set_permissions(fs::Permissions::from_mode(projection.mode))
    }

    fn link_visible_files(&self, payload: &Payload) -> Result<(), VolumeError> {
        for (path, file) in payload {
            let name = first_component(path);
            let link = self.target.join(name);
            match symlink(Path::new(DATA_DIR).join(name), &link) {
                Ok(()) if self.may_chown && file.user.is_some() => {
                    lchown(&link, file.user, None).map_err(|e| io_error("change the owner of", &link, e))?;
                }
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create", &link, e)),
            }
        }
        Ok(())
    }

    /// Removes links to files that are gone, and everything of ours that is not current: old data, and what an agent
    /// that died half-way left. Files and directories that others made (mount points, subPaths) stay.
    fn remove_leftovers(&self, payload: &Payload) -> Result<(), VolumeError> {
        let visible: BTreeSet<&str> = payload.keys().map(|path| first_component(path)).collect();
        let cannot = |path: &Path, e| io_error("clean up", path, e);
        let current = fs::read_link(self.target.join(DATA_DIR)).map_err(|e| cannot(self.target, e))?;
        for entry in fs::read_dir(self.target).map_err(|e| cannot(self.target, e))? {
            let entry = entry.map_err(|e| cannot(self.target, e))?;
            let (name, path) = (entry.file_name(), entry.path());
            let file_type = entry.file_type().map_err(|e| cannot(&path, e))?;
            let name = name.to_string_lossy();
            let is_ours = name.starts_with("..") || file_type.is_symlink();
            let is_wanted =
                name == DATA_DIR || Path::new(&*name) == current || visible.contains(name.as_ref());
            if !is_ours || is_wanted {
                continue;
            }
            let removed = if file_type.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| cannot(&path, e))?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIR_MODE).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(DIR_MODE))
}

/// `a` and `a/b` for `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn first_component(path: &str) -> &str {
    path.split_once('/').map_or(path, |(first, _)| first)
}

/// Whether a directory holds exactly these files. As upstream, modes and owners are not looked at: they come from
/// the pod's spec, which does not change.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = 0;
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for entry in fs::read_dir(dir.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push(path);
                continue;
            }
            let Some(file) = path.to_str().and_then(|path| payload.get(path)) else { return Ok(false) };
            if entry.metadata()?.len() != file.data.len() as u64 || fs::read(entry.path())? != file.data {
                return Ok(false);
            }
            found += 1;
        }
    }
    Ok(found == payload.len())
}

/// A path in a volume without `.` and double slashes, if it may be one (`validatePath`): relative, no `..`, not
/// beginning with two dots, which is the writer's own name space.
pub(crate) fn clean_path(path: &str) -> Result<String, VolumeError> {
    let refused = |why: &str| Err(VolumeError::Invalid(format!("the path {path:?} of a file {why}")));
    if path.starts_with('/') {
        return refused("must be relative");
    }
    if path.len() > MAX_PATH_LENGTH {
        return refused("must not be longer than 4096 bytes");
    }
    if path.starts_with("..") {
        return refused("must not start with '..'");
    }
    let mut clean: Vec<&str> = Vec::new();
    for item in path.split('/') {
        match item {
            ".." => return refused("must not contain '..'"),
            "" | "." => {}
            item if item.len() > MAX_FILE_NAME_LENGTH => {
                return refused("must not have a part longer than 255 bytes");
            }
            item => clean.push(item),
        }
    }
    match clean.first() {
        None => refused("must not be empty"),
        Some(first) if first.starts_with("..") => refused("must not start with '..'"),
        Some(_) => Ok(clean.join("/")),
    }
}
