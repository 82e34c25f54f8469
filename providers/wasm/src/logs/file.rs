//! The file of one log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A file that is opened when something is written: containers that never write hold no descriptor.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    failing: bool,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, failing: false }
    }

    /// Writes lines. If the disk does not take them they are lost: waiting for space would stop the logs of all
    /// other containers too.
    pub(super) fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        match self.open().and_then(|mut file| file.write_all(lines)) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.file = None;
                if !self.failing {
                    tracing::warn!(path = %self.path.display(), %error, "container output is lost: cannot write its log");
                }
                self.failing = true;
            }
        }
    }

    /// Makes the next write go to whatever is at the path, and makes sure that something is.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        self.open()?;
        self.file = None;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            self.file = Some(OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::Error::other("not open"))
    }
}
