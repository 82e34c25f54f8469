//! Where things lie under the root directory: upstream's layout (`pkg/kubelet/kubelet_getters.go`).
//!
//! ```text
//! <root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<volume>
//!                  /volume-subpaths/<volume>/<container>/<index>
//!                  /containers/<container>/…
//!                  /etc-hosts
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_core::ports::VolumeError;

/// Directories of the kubelet itself: nothing below them is anybody else's business.
const PRIVATE_DIR_MODE: u32 = 0o750;

/// The root directory.
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the root directory if it is missing, and finds out its real path.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIR_MODE).create(root)?;
        let layout = Self { root: fs::canonicalize(root)? };
        make_private_dir(&layout.pods_dir())?;
        Ok(layout)
    }

    /// The real path of the root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn pods_dir(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Everything that is kept for one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// One volume of a pod.
    pub(crate) fn volume_dir(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(plugin).join(volume)
    }

    /// The hosts file of a pod.
    pub(crate) fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("etc-hosts")
    }

    /// What is kept for the containers of a pod.
    pub(crate) fn containers_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("containers")
    }

    /// What is kept for one of them.
    pub(crate) fn container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.containers_dir(uid).join(container)
    }

    /// Makes the directory of a pod.
    pub(crate) fn make_pod_dir(&self, uid: &str) -> io::Result<()> {
        make_private_dir(&self.pod_dir(uid))
    }

    /// Makes the directory of a container.
    pub(crate) fn make_container_dir(&self, uid: &str, container: &str) -> io::Result<()> {
        self.make_pod_dir(uid)?;
        make_private_dir(&self.containers_dir(uid))?;
        make_private_dir(&self.container_dir(uid, container))
    }

    /// Makes the directories above the volumes of a pod.
    pub(crate) fn make_parents<'a>(
        &self,
        uid: &str,
        volume_dirs: impl Iterator<Item = &'a Path>,
    ) -> io::Result<()> {
        self.make_pod_dir(uid)?;
        make_private_dir(&self.pod_dir(uid).join("volumes"))?;
        volume_dirs.filter_map(Path::parent).try_for_each(make_private_dir)
    }

    /// The UIDs of all pods that have a directory.
    pub(crate) fn pods(&self) -> io::Result<Vec<String>> {
        let mut uids = Vec::new();
        for entry in fs::read_dir(self.pods_dir())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                uids.extend(entry.file_name().into_string());
            }
        }
        Ok(uids)
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(PRIVATE_DIR_MODE).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Whether a name is safe as the name of a directory entry. Pods from files and URLs were validated by nobody.
pub(crate) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}

/// A pod's UID, if it can be the name of a directory.
pub(crate) fn check_uid(uid: &str) -> Result<&str, VolumeError> {
    if is_file_name(uid) {
        Ok(uid)
    } else {
        Err(VolumeError::Invalid(format!("pod UID {uid:?} cannot be the name of a directory")))
    }
}
