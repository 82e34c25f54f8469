//! Container logs on disk, in CRI's format: read, tailed, filtered and followed
//! (upstream: `k8s.io/cri-client/pkg/logs`), and rotated.

mod buffer;
mod error;
mod file;
mod last;
mod line;
mod options;
mod read;
mod rotation;
mod sink;
mod tail;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

pub use error::ReadLogsError;
pub(crate) use last::text_of_end;
pub use last::{
    MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH, MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES, read_last,
};
pub use line::LogStream;
pub use options::LogOptions;
pub use read::read_logs;
pub(crate) use rotation::clean;
pub use rotation::{ContainerLogManager, LogRotatePolicy};
pub use sink::LogSink;
pub use watch::LogWatches;
