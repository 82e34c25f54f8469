//! The hosts file of a pod, and what its containers say about their end (upstream: `ensureHostsFile` and `getPodContainerDir`
//! in `pkg/kubelet`, `makeMounts` in `kuberuntime_container.go`, `pkg/util/tail`).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use coracle_core::pod::PodExt as _;
use coracle_core::ports::{PodFiles, VolumeError};
use k8s_openapi::api::core::v1::Pod;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::error::io_error;
use crate::layout::{check_uid, is_file_name};
use crate::manager::{VolumeManager, blocking};
use crate::spec::EMPTY_DIR_PLUGIN;
use crate::subpath;

const HOSTS_FILE_MODE: u32 = 0o644;
/// Whoever the container runs as.
const TERMINATION_LOG_MODE: u32 = 0o666;
/// How many instances of a container keep their file. The runtime may still have to tell how they ended.
const KEPT: u32 = 3;
/// As much as a ConfigMap can have. An environment has to fit into memory, and a container could write without end.
const LARGEST_ENV_FILE: u64 = 1 << 20;

#[async_trait]
impl PodFiles for VolumeManager {
    async fn write_hosts_file(&self, pod_uid: &str, content: Vec<u8>) -> Result<PathBuf, VolumeError> {
        let (layout, uid) = (self.layout.clone(), check_uid(pod_uid)?.to_owned());
        let held = self.mounted(&uid).lock_owned().await;
        blocking(move || {
            let path = layout.hosts_file(&uid);
            let written = layout.make_pod_dir(&uid).and_then(|()| write(&path, &content, HOSTS_FILE_MODE));
            drop(held);
            written.map_err(|error| io_error("write", &path, error)).map(|()| path)
        })
        .await
    }

    async fn make_termination_log(
        &self,
        pod_uid: &str,
        container: &str,
        restart_count: u32,
    ) -> Result<PathBuf, VolumeError> {
        let (layout, uid) = (self.layout.clone(), check_uid(pod_uid)?.to_owned());
        if !is_file_name(container) {
            return Err(VolumeError::Invalid(format!("{container:?} cannot be the name of a folder")));
        }
        let container = container.to_owned();
        let held = self.mounted(&uid).lock_owned().await;
        blocking(move || {
            let folder = layout.container_dir(&uid, &container);
            let file = |instance: u32| folder.join(format!("{instance:08x}"));
            let path = file(restart_count);
            let made = layout
                .make_container_dir(&uid, &container)
                .and_then(|()| restart_count.checked_sub(KEPT).map_or(Ok(()), |old| remove(&file(old))))
                .and_then(|()| remove(&path))
                .and_then(|()| write(&path, b"", TERMINATION_LOG_MODE));
            drop(held);
            made.map_err(|error| io_error("make", &path, error)).map(|()| path)
        })
        .await
    }

    async fn read_termination_log(
        &self,
        pod_uid: &str,
        file: &Path,
        at_most: usize,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        let (containers, file) = (self.layout.containers_dir(check_uid(pod_uid)?), file.to_owned());
        blocking(move || match read_own(&containers, &file, at_most) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map_err(|error| io_error("read", &file, error)),
        })
        .await
    }

    async fn read_env_file(&self, pod: &Pod, volume: &str, path: &str) -> Result<Vec<u8>, VolumeError> {
        let uid = pod.uid();
        let dir = self.layout.volume_dir(check_uid(&uid)?, EMPTY_DIR_PLUGIN, volume);
        subpath::validate(path)?;
        let mut volumes = pod.pod_spec().volumes.iter().flatten();
        let is_there = volumes.any(|it| it.name == volume && it.empty_dir.is_some());
        let held = self.mounted(&uid).lock_owned().await;
        if !is_there || !held.contains_key(volume) {
            let message = format!("cannot find the volume {volume:?} referenced by FileKeyRef");
            return Err(VolumeError::Invalid(message));
        }
        let path = path.to_owned();
        blocking(move || {
            let read = read_env_file(&dir, &path);
            drop(held);
            read.map_err(|error| VolumeError::Io(error.to_string()))
        })
        .await
    }
}

/// Opens a file of a volume. Containers may be writing there at this very moment: links end in the volume.
fn read_env_file(volume: &Path, path: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = openat(CWD, volume, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat2(&base, path, flags, Mode::empty(), resolve)?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not an ordinary file"));
    }
    let mut content = Vec::new();
    file.take(LARGEST_ENV_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_ENV_FILE {
        return Err(io::Error::other(format!("it has more than {LARGEST_ENV_FILE} bytes")));
    }
    Ok(content)
}

/// Writes a file in place, with this mode whatever the umask is.
fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last bytes of an ordinary file two levels below a folder.
fn read_own(containers: &Path, path: &Path, at_most: usize) -> io::Result<Option<Vec<u8>>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let folder = fs::canonicalize(folder)?;
    if folder.parent() != Some(containers) {
        return Ok(None);
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(name))?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    read_end(&mut file, meta.len(), at_most as u64).map(Some)
}

fn read_end(file: &mut File, size: u64, at_most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(size.saturating_sub(at_most)))?;
    let mut content = Vec::new();
    // It may still grow.
    file.take(at_most).read_to_end(&mut content)?;
    Ok(content)
}
