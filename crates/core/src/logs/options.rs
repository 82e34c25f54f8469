//! Which part of a log is wanted.

use jiff::Timestamp;

use super::LogStream;

/// Which part of a log is wanted (upstream: `logs.LogOptions`). The default is all of what is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only this many lines from the end. A line is a line of the file: one that the runtime cut in three counts three.
    pub tail_lines: Option<u64>,
    /// Stop after this many bytes of output.
    pub limit_bytes: Option<u64>,
    /// Only lines of this time or later.
    pub since: Option<Timestamp>,
    /// Go on until the container has ended and everything is read.
    pub follow: bool,
    /// Put its time before every line.
    pub timestamps: bool,
    /// Only this stream; both if none.
    pub stream: Option<LogStream>,
}
