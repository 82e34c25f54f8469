//! Tells when something happens in a log's directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// A followed log is looked at this often even without a notice (`logForceCheckPeriod`): some file systems give none.
const LOG_FORCE_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A watch on a directory. Dropping it ends the watch.
pub(super) struct LogWatch {
    /// None if the kernel grants no more watches; then only the period is left.
    notices: Option<AsyncFd<OwnedFd>>,
}

impl LogWatch {
    pub(super) fn new(directory: &Path) -> Self {
        let notices = watch(directory)
            .inspect_err(|error| {
                warn!(
                    ?directory,
                    %error,
                    "cannot watch a log directory, its logs are followed with delay; raise fs.inotify.max_user_instances"
                );
            })
            .ok();
        Self { notices }
    }

    /// Waits until a file may have changed, at most the check period. Nothing since the last call is missed.
    pub(super) async fn changed(&mut self) {
        match &self.notices {
            // The time-out is the same news as a notice: look again.
            Some(notices) => _ = tokio::time::timeout(LOG_FORCE_CHECK_PERIOD, consume(notices)).await,
            None => tokio::time::sleep(LOG_FORCE_CHECK_PERIOD).await,
        }
    }
}

fn watch(directory: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    register(inotify)
}

#[allow(unsafe_code)]
fn register(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

/// Waits for notices and throws them away: which file it was is cheaper to find out by looking.
async fn consume(notices: &AsyncFd<OwnedFd>) {
    let mut events = [0; 4096];
    loop {
        let Ok(mut ready) = notices.readable().await else {
            // The runtime is going down.
            return std::future::pending().await;
        };
        let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut events)?));
        if read.is_ok() {
            return;
        }
    }
}
