//! Network namespaces of pods, and threads inside them.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// The namespace of the thread that opens it.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// The file system that namespaces are files of (linux/magic.h).
const NAMESPACE_FILES: rustix::fs::FsWord = 0x6e73_6673;

thread_local! {
    /// The namespace that the current thread was moved into; none while it is in the process's own.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A closure for the thread inside the namespace.
type Job = Box<dyn FnOnce() + Send>;

/// A network namespace that this process holds. One without a name is held by file descriptors, threads and sockets
/// alone, so the kernel removes it, and everything in it, however the process ends.
///
/// The namespace of a socket is that of the thread that makes it. One thread lives inside and makes sockets for
/// callers that live outside; threads that run guests enter for good.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    /// The inode of the namespace: its identity.
    id: u64,
    /// Dropping it ends the thread.
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// Makes a namespace without a name, empty but for a loopback device that is down. Needs CAP_SYS_ADMIN.
    pub(super) fn create() -> io::Result<Arc<Self>> {
        Self::start(unshare_network)
    }

    /// Makes a namespace that is found at `path` until [`remove_named`] is called, also by later processes.
    pub(super) fn create_named(path: &Path) -> io::Result<Arc<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
        let bound = path.to_owned();
        let made = Self::start(move || {
            let made = unshare_network()?;
            mount_bind(OWN_NAMESPACE, &bound)?;
            Ok(made)
        });
        made.inspect_err(|_| {
            // It tells more than that the file stays behind.
            let _ = remove_named(path);
        })
    }

    /// Opens a namespace by its path. An ordinary file in its place, as after the machine's restart, is an error.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        if fstatfs(&file)?.f_type != NAMESPACE_FILES {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is no namespace", path.display()),
            ));
        }
        Self::start(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            let id = file.metadata()?.ino();
            CURRENT.set(Some(id));
            Ok((file.into(), id))
        })
    }

    /// Starts the thread that lives inside, and has it go there.
    fn start(enter: impl FnOnce() -> io::Result<(OwnedFd, u64)> + Send + 'static) -> io::Result<Arc<Self>> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::Builder::new().name("pod-network".into()).stack_size(256 * 1024).spawn(move || {
            let result = enter();
            let succeeded = result.is_ok();
            if ready.send(result).is_ok() && succeeded {
                queue.into_iter().for_each(|job| job());
            }
        })?;
        let (fd, id) = made.recv().map_err(|_| thread_ended())??;
        Ok(Arc::new(Self { fd, id, jobs }))
    }

    /// Runs a short closure inside and waits for what it returns. It must not block.
    pub(super) fn run<R, F>(&self, work: F) -> io::Result<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (done, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // A caller that went away needs no result.
            let _ = done.send(work());
        });
        self.jobs.send(job).map_err(|_| thread_ended())?;
        result.recv().map_err(|_| thread_ended())
    }

    /// Moves the current thread inside, for good. Needs CAP_SYS_ADMIN.
    pub(super) fn enter(&self) -> io::Result<()> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
        CURRENT.set(Some(self.id));
        Ok(())
    }

    /// What a thread that runs guests has to do first. Where it fails, the process aborts: guests would be on the node's
    /// network.
    pub(super) fn enter_or_abort(&self) {
        if let Err(error) = self.enter() {
            tracing::error!(%error, "a thread for guests cannot enter the pods' network");
            std::process::abort();
        }
    }

    /// The identity of the namespace.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the current thread is inside.
    pub(super) fn is_current(&self) -> bool {
        CURRENT.get() == Some(self.id)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Takes the name from a namespace, which is gone then once nobody is in it. Without one, nothing happens.
pub(super) fn remove_named(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the current thread never left the process's own namespace.
pub(super) fn is_outside() -> bool {
    CURRENT.get().is_none()
}

/// Moves the current thread into a new namespace and opens it.
fn unshare_network() -> io::Result<(OwnedFd, u64)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let file = File::open(OWN_NAMESPACE)?;
    let id = file.metadata()?.ino();
    CURRENT.set(Some(id));
    Ok((file.into(), id))
}

fn thread_ended() -> io::Error {
    io::Error::other("the thread in the pods' network namespace has ended")
}
