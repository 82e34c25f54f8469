//! An open log file that knows when another has taken its place.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::AsyncSeekExt;

use super::ReadLogsError;
use super::tail::find_tail_line_start;

/// A log, open.
pub(super) struct LogFile {
    /// Where it is, symlinks resolved.
    path: PathBuf,
    pub(super) file: File,
    /// Device and inode.
    id: (u64, u64),
    is_empty: bool,
}

impl LogFile {
    pub(super) async fn open(path: &Path) -> Result<Self, ReadLogsError> {
        let opened = async { Self::open_resolved(fs::canonicalize(path).await?).await };
        opened.await.map_err(|source| ReadLogsError::Open { path: path.into(), source })
    }

    async fn open_resolved(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path).await?;
        let metadata = file.metadata().await?;
        Ok(Self { path, file, id: (metadata.dev(), metadata.ino()), is_empty: metadata.len() == 0 })
    }

    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Goes to where the last lines begin.
    pub(super) async fn seek_to_last_lines(&mut self, lines: u64) -> Result<(), ReadLogsError> {
        let sought = async {
            let file = self.file.try_clone().await?.into_std().await;
            let search = tokio::task::spawn_blocking(move || find_tail_line_start(&file, lines));
            let start = search.await.map_err(io::Error::other)??;
            self.file.seek(SeekFrom::Start(start)).await
        };
        match sought.await {
            Ok(_) => Ok(()),
            Err(source) => Err(ReadLogsError::Tail { path: self.path.clone(), lines, source }),
        }
    }

    /// The file that has taken this one's place after a rotation. One that is still empty does not count while the
    /// container runs: until the runtime writes to it, it may still write to the old one.
    pub(super) async fn replacement(&self, container_ended: bool) -> Result<Option<Self>, ReadLogsError> {
        let found = async {
            let metadata = fs::metadata(&self.path).await?;
            if (metadata.dev(), metadata.ino()) == self.id {
                return Ok(None);
            }
            Self::open_resolved(self.path.clone()).await.map(Some)
        };
        match found.await {
            Ok(Some(new)) if new.is_empty && !container_ended => Ok(None),
            Ok(found) => Ok(found),
            // Between the rename and the creation there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReadLogsError::Open { path: self.path.clone(), source }),
        }
    }

    pub(super) fn read_error(&self, source: io::Error) -> ReadLogsError {
        ReadLogsError::Read { path: self.path.clone(), source }
    }
}
