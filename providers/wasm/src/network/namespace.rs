//! A network namespace that lives as long as this process, and threads inside it.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

thread_local! {
    /// The namespace that the current thread was moved into; none while it is in the process's own.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A closure for the thread inside the namespace.
type Job = Box<dyn FnOnce() + Send>;

/// A network namespace without a name: only file descriptors, threads and sockets of this process hold it, so the
/// kernel removes it, and everything in it, however the process ends.
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
    /// Makes a namespace, empty but for a loopback device that is down. Needs CAP_SYS_ADMIN.
    pub(super) fn create() -> io::Result<Arc<Self>> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::Builder::new().name("pod-network".into()).stack_size(256 * 1024).spawn(move || {
            let result = unshare_network();
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

    /// Whether the current thread is inside.
    pub(super) fn is_current(&self) -> bool {
        CURRENT.get() == Some(self.id)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Whether the current thread never left the process's own namespace.
pub(super) fn is_outside() -> bool {
    CURRENT.get().is_none()
}

/// Moves the current thread into a new namespace and opens it.
fn unshare_network() -> io::Result<(OwnedFd, u64)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let file = File::open("/proc/thread-self/ns/net")?;
    let id = file.metadata()?.ino();
    CURRENT.set(Some(id));
    Ok((file.into(), id))
}

fn thread_ended() -> io::Error {
    io::Error::other("the thread in the pods' network namespace has ended")
}
