//! Why a log could not be read.

use std::io;
use std::path::PathBuf;

/// A failed read of a container's log.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogsError {
    /// The file is not there, or may not be read.
    #[error("failed to open log file {path:?}: {source}")]
    Open {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The search for the last lines failed.
    #[error("failed to tail {lines} lines of log file {path:?}: {source}")]
    Tail {
        /// The log.
        path: PathBuf,
        /// How many lines were wanted.
        lines: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed half-way.
    #[error("failed to read log file {path:?}: {source}")]
    Read {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first line is not in CRI's format, so the file is no container log.
    #[error("failed to get parse function: unsupported log format: {line:?}")]
    UnsupportedFormat {
        /// The beginning of that line.
        line: String,
    },
    /// The reader at the other end is gone.
    #[error("failed to write logs: {0}")]
    Sink(#[source] io::Error),
}
