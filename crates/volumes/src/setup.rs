//! The part of a mount that touches the disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod};
use tokio::sync::OwnedMutexGuard;

use crate::atomic_writer::AtomicWriter;
use crate::empty_dir::EmptyDir;
use crate::error::{io_error, set_up_failed};
use crate::host_path;
use crate::layout::Layout;
use crate::nested::nested_mount_points;
use crate::ownership::set_volume_ownership;
use crate::payload::Payload;
use crate::sources::Version;

/// What is set up of one pod: volumes by name, with the versions of what they hold.
pub(crate) type Mounted = HashMap<String, Vec<Version>>;

/// A volume that has to be made or brought up to date.
pub(crate) struct Job {
    pub(crate) volume: String,
    pub(crate) setup: Setup,
    /// The versions of what it will hold.
    pub(crate) versions: Vec<Version>,
}

/// Does all that has to be done for a pod, and notes what is done. What fails for one volume does not hold up the
/// others; the failures are the answer. Blocks.
pub(crate) fn set_up(
    layout: &Layout,
    uid: &str,
    jobs: Vec<Job>,
    mut mounted: OwnedMutexGuard<Mounted>,
) -> Result<Vec<VolumeError>, VolumeError> {
    layout
        .make_parents(uid, jobs.iter().filter_map(|job| job.setup.dir()))
        .map_err(|e| io_error("create", &layout.pod_dir(uid), e))?;
    let mut errors = Vec::new();
    for job in jobs {
        match job.setup.run(&job.volume, layout.root()) {
            Ok(()) => drop(mounted.insert(job.volume, job.versions)),
            Err(error) => errors.push(set_up_failed(&job.volume, error)),
        }
    }
    Ok(errors)
}

/// What is to be made.
pub(crate) enum Setup {
    EmptyDir { dir: PathBuf, empty_dir: EmptyDir },
    HostPath(HostPathVolumeSource),
    Payload(PayloadSetup),
}

/// A volume of files.
pub(crate) struct PayloadSetup {
    pub(crate) pod: Arc<Pod>,
    pub(crate) dir: PathBuf,
    pub(crate) payload: Payload,
    /// The group that it is given to.
    pub(crate) group: Option<u32>,
    /// Whether files can be given to other users.
    pub(crate) may_chown: bool,
}

impl Setup {
    /// Its directory, if it lies under the root directory.
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::EmptyDir { dir, .. } => Some(dir),
            Self::HostPath(_) => None,
            Self::Payload(setup) => Some(&setup.dir),
        }
    }

    fn run(&self, volume: &str, root: &Path) -> Result<(), VolumeError> {
        match self {
            Self::EmptyDir { dir, empty_dir } => empty_dir.set_up(dir),
            Self::HostPath(source) => host_path::resolve(source, root).map(drop),
            Self::Payload(setup) => setup.run(volume),
        }
    }
}

impl PayloadSetup {
    fn run(&self, volume: &str) -> Result<(), VolumeError> {
        EmptyDir::plain().set_up(&self.dir)?;
        for nested in nested_mount_points(&self.pod, volume) {
            let path = self.dir.join(nested);
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(|e| io_error("create the mount point", &path, e))?;
        }
        // Files appear outside of the new data directory too, so all of the volume is given to the group.
        let set_permissions = || match self.group {
            Some(group) => set_volume_ownership(&self.dir, group, true),
            None => Ok(()),
        };
        AtomicWriter::new(&self.dir, self.may_chown).write(&self.payload, set_permissions).map(drop)
    }
}
