//! Notices about manifests.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{ReadFlags, WatchFlags};
use tracing::warn;

use crate::inotify::{Inotify, Notice};

/// What is worth a look. That a file is being written is not, before it is closed.
const NEWS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The folder is gone, or another one has its name.
const END: ReadFlags =
    ReadFlags::IGNORED.union(ReadFlags::DELETE_SELF).union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT);

/// A watch on a folder of manifests, or on the folder of a single one.
pub(super) struct ManifestWatch {
    folder: PathBuf,
    inotify: Inotify,
}

impl ManifestWatch {
    /// Watches a path; none if it is not there, or cannot be watched.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let folder = if path.is_dir() { path } else { path.parent()? };
        match Inotify::watch(folder, NEWS) {
            Ok(inotify) => Some(Self { folder: folder.to_owned(), inotify }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let folder = folder.display();
                warn!(
                    "cannot watch {folder}, static pods change with delay: {error}; raise fs.inotify.max_user_instances"
                );
                None
            }
        }
    }

    /// Waits until manifests may say something else. False once the folder is no longer watched.
    pub(super) async fn changed(&self) -> bool {
        loop {
            let notices = self.inotify.notices().await;
            if notices.iter().any(|notice| notice.flags.intersects(END)) {
                return false;
            }
            if notices.iter().any(|notice| self.is_news(notice)) {
                return true;
            }
        }
    }

    /// A file that was only just created is empty; another notice follows when it is written. A link is complete.
    fn is_news(&self, notice: &Notice) -> bool {
        if notice.flags != ReadFlags::CREATE {
            return true;
        }
        let name = notice.name.as_deref().unwrap_or_default();
        let metadata = self.folder.join(name).symlink_metadata();
        metadata.is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
    }
}
