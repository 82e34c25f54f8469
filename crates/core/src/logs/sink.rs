//! Where log content goes.

use std::future::Future;
use std::io;

use super::LogStream;

/// Takes the content of a log. Writes are awaited one after the other, so a slow sink slows the reader down.
pub trait LogSink: Send {
    /// Takes content of one stream: a line, or a part of one. An error ends the reading.
    fn write(&mut self, stream: LogStream, content: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Everything that is there has been written; whatever the sink still holds should go out now.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}
