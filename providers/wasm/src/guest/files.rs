//! What a guest sees of the host's files.
//!
//! WASI hands a guest open folders. A mount of a folder is one; a mount of a single file needs a folder that holds
//! it: a private one of the container, into which the file is linked. A hard link behaves as a bind mount of the
//! file does: what is written appears at both ends, and a file that is replaced by another stays the old one.
//!
//! All of this is done as the agent's own user, as a container runtime does it. What the guest does with its files after
//! that, the threads do that have its user.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use coracle_provider::Mount;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, linkat, openat2,
};
use rustix::io::Errno;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};

/// A file that cannot be linked is copied if it is not larger. ConfigMaps and Secrets end at 1 MiB; a node's disk
/// must not fill up with copies of a large one.
const LARGEST_COPY: u64 = 16 << 20;

/// A mount that a guest cannot have.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {host_path} at {container_path}: {reason}")]
pub(crate) struct MountError {
    container_path: String,
    host_path: PathBuf,
    reason: String,
    /// Whether the mount itself is at fault, so that trying again is of no use.
    pub(crate) permanent: bool,
}

impl MountError {
    fn refused(mount: &Mount, reason: impl Into<String>) -> Self {
        Self {
            container_path: mount.container_path.clone(),
            host_path: mount.host_path.clone(),
            reason: reason.into(),
            permanent: true,
        }
    }

    /// Something of this process's own could not be made or opened.
    fn unwritten(path: &Path, error: impl std::fmt::Display) -> Self {
        Self {
            container_path: String::from("/"),
            host_path: path.into(),
            reason: error.to_string(),
            permanent: false,
        }
    }

    fn failed(mount: &Mount, error: impl std::fmt::Display) -> Self {
        Self { permanent: false, ..Self::refused(mount, error.to_string()) }
    }
}

/// What every container of a pod may know about its network, as programs look for it.
const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Opens everything that a guest is to see. Each instance gets a clone of the answer, so that nothing is opened
/// again for it.
///
/// `resolv_conf` is the content of that file, if there is to be one; `private` is the container's own folder, made if it
/// is needed; `forbidden` is the provider's root, where code that runs comes from. Blocks.
pub(crate) fn open(
    mounts: &[Mount],
    resolv_conf: &str,
    private: &Path,
    forbidden: &Path,
) -> Result<WasiFilesystemCtx, MountError> {
    let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
    let mut files: BTreeMap<String, Vec<File<'_>>> = BTreeMap::new();
    for mount in mounts {
        let path = guest_path(&mount.container_path);
        let (host, kind) = find(mount, forbidden)?;
        match kind {
            FileType::Directory => {
                let folder = Folder { host: host.path(), perms: perms(mount.read_only), _open: Some(host) };
                if folders.insert(path, folder).is_some() {
                    return Err(MountError::refused(mount, "something else is mounted there"));
                }
            }
            FileType::RegularFile => {
                let (parent, name) = split(&path);
                files.entry(parent.into()).or_default().push(File { name: name.into(), host, mount });
            }
            _ => return Err(MountError::refused(mount, "only folders and ordinary files can be mounted")),
        }
    }
    // A folder in their place has them as it likes: names are looked up by the host anyway.
    if folders.contains_key(split(HOSTS).0)
        && let Some(members) = files.get_mut(split(HOSTS).0)
    {
        members.retain(|file| guest_path(&file.mount.container_path) != HOSTS);
    }
    files.retain(|_, members| !members.is_empty());
    let mut written = Vec::new();
    if !resolv_conf.is_empty() {
        let (parent, name) = split(RESOLV_CONF);
        let is_taken = |members: &Vec<File<'_>>| members.iter().any(|file| file.name == name);
        if !folders.contains_key(parent) && !files.get(parent).is_some_and(is_taken) {
            files.entry(parent.into()).or_default();
            written.push((parent, name, resolv_conf));
        }
    }
    for (number, (parent, members)) in files.into_iter().enumerate() {
        if folders.contains_key(&parent) {
            let reason = format!("{parent} is another mount, and a file cannot be added to it");
            return Err(MountError::refused(members[0].mount, reason));
        }
        let host = private.join(number.to_string());
        let perms = gather(&members, &host)?;
        for (_, name, content) in written.iter().filter(|(folder, ..)| *folder == parent) {
            write(&host, name, content).map_err(|error| MountError::unwritten(&host, error))?;
        }
        folders.insert(parent, Folder { host, perms, _open: None });
    }
    let mut wasi = WasiCtx::builder();
    for (path, folder) in &folders {
        wasi.preopened_dir(&folder.host, path, folder.perms).map_err(|error| MountError {
            container_path: path.clone(),
            ..MountError::unwritten(&folder.host, error)
        })?;
    }
    Ok(wasi.build().filesystem().clone())
}

struct Folder {
    host: PathBuf,
    perms: FsPerms,
    /// What `host` leads to, if that is by a descriptor.
    _open: Option<Found>,
}

struct File<'a> {
    name: String,
    host: Found,
    mount: &'a Mount,
}

/// The folder and the name of an absolute path.
fn split(path: &str) -> (&str, &str) {
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    (if parent.is_empty() { "/" } else { parent }, name)
}

fn write(folder: &Path, name: &str, content: &str) -> io::Result<()> {
    make(folder)?;
    let path = folder.join(name);
    fs::write(&path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes a folder that every user may look into, whatever the process's umask is.
fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn perms(read_only: bool) -> FsPerms {
    if read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite }
}

/// A file or folder that was looked up once. Everything after that goes by the descriptor: by its name it could be
/// something else by then.
struct Found(OwnedFd);

impl Found {
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Absolute, without empty parts: `/a/b`.
fn guest_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// Looks up what a mount leads to. A container of the pod may have put a link into the path, to make the agent open
/// something else, so none is followed.
fn find(mount: &Mount, forbidden: &Path) -> Result<(Found, FileType), MountError> {
    let failed = |error: io::Error| MountError::failed(mount, error);
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(CWD, &mount.host_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Err(MountError::refused(mount, "a part of its path is a symbolic link")),
        Err(error) => return Err(failed(error.into())),
    };
    // Guests run in this process: `/proc/self` is the agent, its memory and its keys.
    if fstatfs(&fd).map_err(|error| failed(error.into()))?.f_type == PROC_SUPER_MAGIC {
        return Err(MountError::refused(mount, "/proc would show the agent's own memory"));
    }
    let kind = FileType::from_raw_mode(fstat(&fd).map_err(|error| failed(error.into()))?.st_mode);
    let found = Found(fd);
    let host = fs::read_link(found.path()).map_err(failed)?;
    let root = fs::canonicalize(forbidden).map_err(failed)?;
    if host.starts_with(&root) || root.starts_with(&host) {
        return Err(MountError::refused(mount, "it holds the code and the records of this node's guests"));
    }
    Ok((found, kind))
}

/// Puts files into a folder of their own, and says how the folder is to be opened.
fn gather(files: &[File<'_>], folder: &Path) -> Result<FsPerms, MountError> {
    let read_only = files.iter().all(|file| file.mount.read_only);
    for file in files {
        let mount = file.mount;
        let target = folder.join(&file.name);
        make(folder).map_err(|error| MountError::failed(mount, error))?;
        if target.exists() {
            return Err(MountError::refused(mount, "something else is mounted there"));
        }
        if mount.read_only && !read_only {
            // In a folder that is open for writing a link would let the guest write to the host's file. A copy
            // it may spoil for itself.
            copy(file, &target)?;
            continue;
        }
        match linkat(CWD, file.host.path(), CWD, &target, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            // Another file system, or one without links.
            Err(_) if mount.read_only => copy(file, &target)?,
            Err(error) => {
                let reason = format!(
                    "a single file that is written to has to be on the same file system as {} ({error}); \
                     mount its folder instead",
                    folder.display()
                );
                return Err(MountError::refused(mount, reason));
            }
        }
    }
    Ok(perms(read_only))
}

fn copy(file: &File<'_>, target: &Path) -> Result<(), MountError> {
    let failed = |error| MountError::failed(file.mount, error);
    let size = fs::metadata(file.host.path()).map_err(failed)?.len();
    if size > LARGEST_COPY {
        let reason =
            format!("it is a single file of {size} bytes that cannot be linked; mount its folder instead");
        return Err(MountError::refused(file.mount, reason));
    }
    fs::copy(file.host.path(), target).map_err(failed)?;
    // Modes come along with the content, owners do not. Who is not root has nobody else's files.
    let meta = fs::metadata(file.host.path()).map_err(failed)?;
    match chown(target, Some(meta.uid()), Some(meta.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(failed(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        folder: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("root/private")).unwrap();
            fs::create_dir_all(folder.path().join("volume")).unwrap();
            fs::write(folder.path().join("volume/file"), "content").unwrap();
            Self { folder }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn mount(&self, host: &str, container: &str, read_only: bool) -> Mount {
            Mount {
                container_path: container.into(),
                host_path: self.path(host),
                read_only,
                ..Mount::default()
            }
        }

        fn open(&self, mounts: &[Mount]) -> Result<(), String> {
            let private = self.path("root/private");
            open(mounts, "nameserver 192.0.2.1\n", &private, &self.path("root"))
                .map(drop)
                .map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_single_file_is_linked_and_not_copied() {
        let host = Host::new();
        host.open(&[host.mount("volume/file", "/dev/termination-log", false)]).unwrap();
        let linked = host.path("root/private/0/termination-log");
        assert_eq!(
            fs::metadata(&linked).unwrap().ino(),
            fs::metadata(host.path("volume/file")).unwrap().ino()
        );
    }

    #[test]
    fn etc_has_what_the_pod_says_unless_a_volume_is_there() {
        let host = Host::new();
        let etc = |name: &str| fs::read_to_string(host.path("root/private/0").join(name)).ok();
        host.open(&[host.mount("volume/file", "/etc/hosts", true)]).unwrap();
        let expected = (Some("content".to_owned()), Some("nameserver 192.0.2.1\n".to_owned()));
        assert_eq!((etc("hosts"), etc("resolv.conf")), expected);
        fs::remove_dir_all(host.path("root/private/0")).unwrap();
        // A file of the container's own.
        host.open(&[host.mount("volume/file", "/etc/resolv.conf", true)]).unwrap();
        assert_eq!((etc("hosts"), etc("resolv.conf")), (None, Some("content".to_owned())));
        fs::remove_dir_all(host.path("root/private/0")).unwrap();
        // A folder is left as it is.
        let over = [host.mount("volume", "/etc", false), host.mount("volume/file", "/etc/hosts", false)];
        host.open(&over).unwrap();
        assert!(!host.path("root/private/0").exists() && !host.path("volume/resolv.conf").exists());
    }

    #[test]
    fn a_read_only_file_beside_a_writable_one_is_a_copy() {
        let host = Host::new();
        fs::write(host.path("volume/other"), "x").unwrap();
        host.open(&[host.mount("volume/file", "/etc/a", true), host.mount("volume/other", "/etc/b", false)])
            .unwrap();
        fs::write(host.path("root/private/0/a"), "changed").unwrap();
        assert_eq!(fs::read_to_string(host.path("volume/file")).unwrap(), "content");
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_name() {
        let host = Host::new();
        std::os::unix::fs::symlink(host.path("volume"), host.path("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(host.path("volume/socket")).unwrap();
        let cases = [
            (vec![host.mount("volume/socket", "/s", false)], "only folders and ordinary files"),
            (vec![host.mount("volume/none", "/n", false)], "No such file"),
            (vec![host.mount("link/file", "/l", true)], "symbolic link"),
            (vec![host.mount("root/private", "/p", true)], "the code and the records"),
            (vec![host.mount(".", "/all", true)], "the code and the records"),
            (vec![host.mount("/proc/sys", "/p", true)], "the agent's own memory"),
            (vec![host.mount("volume", "/v", true), host.mount("volume", "//v/", true)], "something else"),
            (
                vec![host.mount("volume", "/v", true), host.mount("volume/file", "/v/f", true)],
                "/v is another mount",
            ),
            (
                vec![host.mount("volume/file", "/f", true), host.mount("volume/file", "/f", true)],
                "something else",
            ),
        ];
        for (mounts, expected) in cases {
            let error = host.open(&mounts).unwrap_err();
            assert!(error.contains(expected), "{error}");
            let _ = fs::remove_dir_all(host.path("root/private/0"));
        }
        drop(socket);
    }

    #[test]
    fn paths_of_guests_are_made_plain() {
        assert_eq!(guest_path("/a//b/./c/"), "/a/b/c");
        assert_eq!(guest_path("a"), "/a");
        assert_eq!(guest_path("/"), "/");
    }
}
