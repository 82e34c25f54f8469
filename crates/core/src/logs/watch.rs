//! Tells when something happens in a log's directory.

use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;
use tracing::warn;

use crate::inotify::Inotify;

/// A followed log is looked at this often even without a notice (`logForceCheckPeriod`): some file systems give none.
const LOG_FORCE_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// A watch on a directory. Dropping it ends the watch.
pub(super) struct LogWatch {
    /// None if the kernel grants no more watches; then only the period is left.
    notices: Option<Inotify>,
}

impl LogWatch {
    pub(super) fn new(directory: &Path) -> Self {
        let news = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let notices = Inotify::watch(directory, news)
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
            // The time-out is the same news as a notice, and which file it was is cheaper to find out by looking.
            Some(notices) => _ = tokio::time::timeout(LOG_FORCE_CHECK_PERIOD, notices.notices()).await,
            None => tokio::time::sleep(LOG_FORCE_CHECK_PERIOD).await,
        }
    }
}
