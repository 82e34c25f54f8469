//! The end of a log, as a termination message.

use std::future::pending;
use std::io;
use std::path::Path;

use super::{LogOptions, LogSink, LogStream, LogWatches, ReadLogsError, read_logs};

/// Longest termination message that is taken from a log, in bytes (`pkg/kubelet/container/runtime.go`).
pub const MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH: usize = 2048;

/// How many lines of a log a termination message is taken from.
pub const MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES: u64 = 80;

/// What the last lines of a log say on both streams, of that at most the last `bytes`
/// (`readLastStringFromContainerLogs`). It never begins within a character; bytes that are no UTF-8 are replaced.
pub async fn read_last(path: &Path, lines: u64, bytes: usize) -> Result<String, ReadLogsError> {
    let options = LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    let mut end = End { limit: bytes, content: Vec::new() };
    read_logs(path, &options, &LogWatches::default(), pending(), &mut end).await?;
    Ok(end.into_text())
}

/// Keeps the last bytes of what it is given.
struct End {
    limit: usize,
    /// Up to twice the limit, so that bytes are not moved at every write.
    content: Vec<u8>,
}

impl End {
    fn into_text(self) -> String {
        let cut = self.content.len().saturating_sub(self.limit);
        text_of_end(&self.content[cut..])
    }
}

/// The end of a text that may have been cut within a character. Bytes that are no UTF-8 are replaced.
pub(crate) fn text_of_end(content: &[u8]) -> String {
    let is_continuation = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let broken = content.iter().take(3).take_while(is_continuation).count();
    String::from_utf8_lossy(&content[broken..]).into_owned()
}

impl LogSink for End {
    async fn write(&mut self, _: LogStream, content: &[u8]) -> io::Result<()> {
        if self.content.len() + content.len() > 2 * self.limit {
            let surplus = self.content.len().saturating_sub(self.limit);
            self.content.drain(..surplus);
        }
        self.content.extend_from_slice(content);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
