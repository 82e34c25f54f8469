//! Empty directories, on disk and in memory (`pkg/volume/emptydir`).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use coracle_core::fieldpath::ResourceList;
use coracle_core::pod::{PodExt, is_restartable_init_container};
use coracle_core::ports::VolumeError;
use coracle_core::quantity::{Quantity, QuantityError};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::error::io_error;
use crate::ownership::group_permissions;
use crate::spec::EmptyDirSpec;

/// Upstream gives everybody everything, and leaves the rest to `fsGroup`.
const DIR_MODE: u32 = 0o777;
/// What a tmpfs has by itself.
const TMPFS_MODE: u32 = 0o1777;
/// From linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// How to make an empty directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct EmptyDir {
    /// The mode, if not the usual one.
    mode: Option<u32>,
    /// The group that it is given to.
    group: Option<u32>,
    /// In memory, and how many bytes it may hold at most if there is a limit.
    tmpfs: Option<Option<u64>>,
}

impl EmptyDir {
    /// What an emptyDir volume of a pod asks for.
    pub(crate) fn new(
        spec: &EmptyDirSpec<'_>,
        pod: &Pod,
        node_allocatable: impl FnOnce() -> ResourceList,
        group: Option<u32>,
    ) -> Result<Self, VolumeError> {
        let mode = spec.mode.map(|mode| {
            u32::try_from(mode)
                .ok()
                .filter(|mode| *mode <= 0o1777)
                .ok_or_else(|| VolumeError::Invalid(format!("mode {mode:#o} is not between 0 and 01777")))
        });
        let tmpfs = spec.in_memory.then(|| memory_size(spec, pod, &node_allocatable())).transpose().map_err(
            |error| VolumeError::Invalid(format!("cannot tell how much memory it may use: {error}")),
        )?;
        Ok(Self { mode: mode.transpose()?, group, tmpfs })
    }

    /// A directory for files that the agent writes.
    pub(crate) fn plain() -> Self {
        Self::default()
    }

    /// Makes the directory. One that is there is left as it is: containers may have changed it.
    pub(crate) fn set_up(&self, dir: &Path) -> Result<(), VolumeError> {
        match self.tmpfs {
            None => self.make_dir(dir),
            Some(size) => {
                Self::plain().make_dir(dir)?;
                if is_mounted_tmpfs(dir).map_err(|e| io_error("look at", dir, e))? {
                    return Ok(());
                }
                self.mount_tmpfs(dir, size).map_err(|e| io_error("mount a tmpfs on", dir, e))
            }
        }
    }

    /// It appears under its name only when mode and owner are right, so that "it exists" means "it is done".
    fn make_dir(&self, dir: &Path) -> Result<(), VolumeError> {
        if fs::symlink_metadata(dir).is_ok() {
            return Ok(());
        }
        let Some(name) = dir.file_name() else {
            return Err(io_error("create", dir, io::ErrorKind::InvalidInput));
        };
        // Volume names never begin with a dot.
        let unfinished = dir.with_file_name(format!(".new-{}", name.to_string_lossy()));
        let make = || -> io::Result<()> {
            match fs::create_dir(&unfinished) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            if self.group.is_some() {
                chown(&unfinished, None, self.group)?;
            }
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(self.mode_or(DIR_MODE)))?;
            fs::rename(&unfinished, dir)
        };
        make().map_err(|e| io_error("create", dir, e))
    }

    fn mode_or(&self, default: u32) -> u32 {
        let mode = self.mode.unwrap_or(default);
        if self.group.is_some() { mode | group_permissions(true, false) } else { mode }
    }

    fn mount_tmpfs(&self, dir: &Path, size: Option<u64>) -> io::Result<()> {
        let mut options = format!("mode={:o}", self.mode_or(TMPFS_MODE));
        if let Some(size) = size {
            options.push_str(&format!(",size={size}"));
        }
        if let Some(group) = self.group {
            options.push_str(&format!(",gid={group}"));
        }
        let mount = |options: &str| -> io::Result<()> {
            let options = CString::new(options).map_err(io::Error::other)?;
            Ok(mount("tmpfs", dir, "tmpfs", MountFlags::empty(), options.as_c_str())?)
        };
        // What a pod keeps in memory must not end up on a swap device; older kernels do not know the option.
        match mount(&format!("{options},noswap")) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => mount(&options),
            result => result,
        }
    }
}

fn is_mounted_tmpfs(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    let is_mount_point = fs::symlink_metadata(dir)?.dev() != fs::metadata(parent)?.dev();
    Ok(is_mount_point && statfs(dir)?.f_type as u64 == TMPFS_MAGIC)
}

/// The least of the volume's limit, the pod's memory limit and what the node can give
/// (`calculateEmptyDirMemorySize`); none if nothing limits it.
fn memory_size(
    spec: &EmptyDirSpec<'_>,
    pod: &Pod,
    node_allocatable: &ResourceList,
) -> Result<Option<u64>, QuantityError> {
    let node = node_allocatable.get("memory").map(Quantity::try_from).transpose()?;
    let volume = spec.size_limit.map(Quantity::try_from).transpose()?;
    let limits = [node, pod_memory_limit(pod)?, volume];
    let least = limits.into_iter().flatten().filter(|limit| *limit > Quantity::ZERO).min();
    Ok(least.and_then(|limit| u64::try_from(limit.value()).ok()))
}

/// The memory limit of a pod as a whole, if there is one: its own, or the most that its containers can use at one
/// time if each of them has a limit (`PodLimits` in `k8s.io/component-helpers/resource`).
fn pod_memory_limit(pod: &Pod) -> Result<Option<Quantity>, QuantityError> {
    let spec = pod.pod_spec();
    let overhead = spec.overhead.as_ref().and_then(|o| o.get("memory"));
    let overhead = overhead.map_or(Ok(Quantity::ZERO), Quantity::try_from)?;
    let own = memory_limit(spec.resources.as_ref())?;
    if !own.is_zero() {
        return Ok(Some(own + overhead));
    }
    let limit = |container: &Container| memory_limit(container.resources.as_ref());

    let mut running = Quantity::ZERO;
    for container in pod.containers() {
        let limit = limit(container)?;
        if limit.is_zero() {
            return Ok(None);
        }
        running = running + limit;
    }
    // Init containers run one after the other, beside the sidecars that started before them.
    let mut sidecars = Quantity::ZERO;
    let mut starting = Quantity::ZERO;
    for container in pod.init_containers() {
        let limit = limit(container)?;
        if limit.is_zero() {
            return Ok(None);
        }
        starting = starting.max(sidecars + limit);
        if is_restartable_init_container(container) {
            sidecars = sidecars + limit;
        }
    }
    Ok(Some((running + sidecars).max(starting) + overhead))
}

fn memory_limit(resources: Option<&ResourceRequirements>) -> Result<Quantity, QuantityError> {
    let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|limits| limits.get("memory"));
    limit.map_or(Ok(Quantity::ZERO), Quantity::try_from)
}
