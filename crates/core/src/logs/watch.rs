//! Tells when something happens in a log's directory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use parking_lot::Mutex;
use rustix::fs::inotify::{ReadFlags, WatchFlags};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::inotify::Inotify;

/// A followed log is looked at this often even without a notice (`logForceCheckPeriod`): some file systems give none.
const LOG_FORCE_CHECK_PERIOD: Duration = Duration::from_secs(1);

const NEWS: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CREATE).union(WatchFlags::MOVED_TO);

/// The directories of all logs that are followed: one inotify instance, of which a user has 128 by default, is enough for
/// all of them. It is made for the first log. Dropping this leaves those who follow with the period.
#[derive(Default)]
pub struct LogWatches {
    shared: Mutex<Option<(Arc<Shared>, AbortOnDropHandle<()>)>>,
}

struct Shared {
    inotify: Inotify,
    directories: Mutex<HashMap<i32, Directory>>,
}

struct Directory {
    changed: watch::Sender<()>,
    followers: usize,
}

/// A watch on a directory. Dropping it ends the watch.
pub(super) struct LogWatch {
    /// None if the kernel grants no more watches; then only the period is left.
    follower: Option<Follower>,
}

struct Follower {
    shared: Arc<Shared>,
    watch: i32,
    changed: watch::Receiver<()>,
}

impl LogWatches {
    pub(super) fn watch(&self, directory: &Path) -> LogWatch {
        let follower = self.follow(directory).inspect_err(|error| {
            warn!(
                ?directory,
                %error,
                "cannot watch a log directory, its logs are followed with delay; raise fs.inotify.max_user_watches"
            );
        });
        LogWatch { follower: follower.ok() }
    }

    fn follow(&self, directory: &Path) -> io::Result<Follower> {
        let shared = self.shared()?;
        let mut directories = shared.directories.lock();
        let watch = shared.inotify.add(directory, NEWS)?;
        let new = || Directory { changed: watch::Sender::new(()), followers: 0 };
        let entry = directories.entry(watch).or_insert_with(new);
        entry.followers += 1;
        let changed = entry.changed.subscribe();
        drop(directories);
        Ok(Follower { shared, watch, changed })
    }

    fn shared(&self) -> io::Result<Arc<Shared>> {
        let mut made = self.shared.lock();
        if let Some((shared, _)) = &*made {
            return Ok(shared.clone());
        }
        let shared = Arc::new(Shared { inotify: Inotify::new()?, directories: Mutex::default() });
        let task = tokio::spawn(shared.clone().tell());
        *made = Some((shared.clone(), AbortOnDropHandle::new(task)));
        Ok(shared)
    }
}

impl fmt::Debug for LogWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWatches").finish_non_exhaustive()
    }
}

impl Shared {
    /// Hands notices on, until it is dropped.
    async fn tell(self: Arc<Self>) {
        loop {
            let notices = self.inotify.notices().await;
            let mut directories = self.directories.lock();
            for notice in notices {
                if notice.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    directories.values().for_each(|directory| directory.changed.send_replace(()));
                } else if notice.flags.contains(ReadFlags::IGNORED) {
                    // The directory is gone; who follows a log of it has only the period.
                    directories.remove(&notice.watch);
                } else if let Some(directory) = directories.get(&notice.watch) {
                    directory.changed.send_replace(());
                }
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut directories = self.shared.directories.lock();
        let Some(directory) = directories.get_mut(&self.watch) else { return };
        directory.followers -= 1;
        if directory.followers == 0 {
            directories.remove(&self.watch);
            self.shared.inotify.remove(self.watch);
        }
    }
}

impl LogWatch {
    /// Waits until a file may have changed, at most the check period. Nothing since the last call is missed.
    pub(super) async fn changed(&mut self) {
        let news = async {
            let Some(follower) = &mut self.follower else { return std::future::pending().await };
            if follower.changed.changed().await.is_err() {
                std::future::pending().await
            }
        };
        // The time-out is the same news as a notice, and which file it was is cheaper to find out by looking.
        _ = tokio::time::timeout(LOG_FORCE_CHECK_PERIOD, news).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    /// Less than the check period: only a notice comes so soon.
    const SOON: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn all_directories_share_one_instance() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let directory = folder.path().join(name);
            fs::create_dir(&directory).unwrap();
            directory
        };
        let (a, b) = (make("a"), make("b"));
        let watches = LogWatches::default();
        let (mut of_a, mut also_of_a, mut of_b) = (watches.watch(&a), watches.watch(&a), watches.watch(&b));
        let shared = watches.shared().unwrap();
        assert_eq!(shared.directories.lock().len(), 2);

        fs::write(a.join("0.log"), "x").unwrap();
        assert!(
            timeout(SOON, of_a.changed()).await.is_ok() && timeout(SOON, also_of_a.changed()).await.is_ok()
        );
        assert!(timeout(SOON, of_b.changed()).await.is_err(), "nothing happened there");

        drop(of_a);
        fs::write(a.join("0.log"), "y").unwrap();
        assert!(timeout(SOON, also_of_a.changed()).await.is_ok(), "somebody still follows it");
        drop(also_of_a);
        assert_eq!(shared.directories.lock().len(), 1);

        fs::remove_dir(&b).unwrap();
        while !shared.directories.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(timeout(SOON, of_b.changed()).await.is_err(), "only the period is left");
        assert!(timeout(3 * LOG_FORCE_CHECK_PERIOD, of_b.changed()).await.is_ok());
    }
}
