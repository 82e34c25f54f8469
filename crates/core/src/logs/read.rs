//! Reading and following a log.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;

use super::buffer::LineBuffer;
use super::file::LogFile;
use super::watch::LogWatches;
use super::writer::LogWriter;
use super::{LogOptions, LogSink, ReadLogsError};

/// Reads a container's log into a sink (`ReadLogs`).
///
/// Without `follow` it returns at the end of the file. With it, it goes on over rotations until `ended` resolves, which
/// says that the container has ended and its runtime has written everything; then it reads to the very end. `ended` is
/// polled only when following, and `watches` are used only then. Dropping the future ends the reading and leaves nothing behind.
pub async fn read_logs<S: LogSink>(
    path: &Path,
    options: &LogOptions,
    watches: &LogWatches,
    ended: impl Future<Output = ()>,
    sink: &mut S,
) -> Result<(), ReadLogsError> {
    let mut log = LogFile::open(path).await?;
    if let Some(lines) = options.tail_lines {
        log.seek_to_last_lines(lines).await?;
    }
    let mut reader = LogReader { buffer: LineBuffer::new(), writer: LogWriter::new(options, sink) };
    if reader.writer.is_done() {
        return Ok(());
    }
    let read = if options.follow { reader.follow(log, watches, ended).await } else { reader.read(log).await };
    // What was read before an error goes out too.
    let flushed = reader.writer.flush().await;
    read.and(flushed)
}

struct LogReader<'a, S> {
    buffer: LineBuffer,
    writer: LogWriter<'a, S>,
}

impl<S: LogSink> LogReader<'_, S> {
    async fn read(&mut self, mut log: LogFile) -> Result<(), ReadLogsError> {
        if self.read_to_end(&mut log).await?.is_continue() {
            // The file ends in the middle of a line only while the runtime is writing it, or after it crashed there.
            _ = self.take_unfinished().await?;
        }
        Ok(())
    }

    /// Reads what is there; breaks when nothing more is wanted.
    async fn read_to_end(&mut self, log: &mut LogFile) -> Result<ControlFlow<()>, ReadLogsError> {
        loop {
            while let Some(piece) = self.buffer.next_piece() {
                if self.writer.write(piece).await?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if self.buffer.fill(&mut log.file).await.map_err(|error| log.read_error(error))? == 0 {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    async fn take_unfinished(&mut self) -> Result<ControlFlow<()>, ReadLogsError> {
        match self.buffer.take_unfinished() {
            Some(piece) => self.writer.write(piece).await,
            None => Ok(ControlFlow::Continue(())),
        }
    }

    async fn follow(
        &mut self,
        mut log: LogFile,
        watches: &LogWatches,
        ended: impl Future<Output = ()>,
    ) -> Result<(), ReadLogsError> {
        // Watched before it is read: what is written in between is either read or noticed.
        let mut watch = watches.watch(log.directory());
        let mut ended = pin!(ended);
        let mut has_ended = false;
        loop {
            if self.read_to_end(&mut log).await?.is_break() {
                return Ok(());
            }
            if let Some(new) = log.replacement(has_ended).await? {
                // Nothing is written to the old file any more, but something may have been since its end was read.
                if self.read_to_end(&mut log).await?.is_break() || self.take_unfinished().await?.is_break() {
                    return Ok(());
                }
                log = new;
                continue;
            }
            if has_ended {
                _ = self.take_unfinished().await?;
                return Ok(());
            }
            self.writer.flush().await?;
            tokio::select! {
                () = &mut ended => has_ended = true,
                () = watch.changed() => {}
            }
        }
    }
}
