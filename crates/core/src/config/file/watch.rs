//! Notices about manifests.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{ReadFlags, WatchFlags};

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
    path: PathBuf,
    folder: PathBuf,
    inotify: Inotify,
}

impl ManifestWatch {
    /// Watches a path. Fails if neither it nor its folder is there, or the kernel grants no more watches.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let inotify = Inotify::watch(folder, NEWS)?;
        Ok(Self { path: path.to_owned(), folder: folder.to_owned(), inotify })
    }

    /// Waits until manifests may say something else. False once it is another folder that has to be watched.
    pub(super) async fn changed(&self) -> bool {
        loop {
            let notices = self.inotify.notices().await;
            let is_folder_watched = self.path == self.folder;
            if notices.iter().any(|notice| notice.flags.intersects(END))
                || self.path.is_dir() != is_folder_watched
            {
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
