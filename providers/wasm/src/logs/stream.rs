//! A log as a guest's standard output.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::ContainerLog;
use super::cri::{Lines, Source, Tag};

/// What a stream may take at once after it waited for room, even if another was faster meanwhile.
const ONE_WRITE: usize = 4096;

/// Standard output or standard error of one instance. All streams made from it write to the same lines; a line
/// without an end is written when the last of them is dropped.
#[derive(Clone)]
pub(crate) struct LogStream(Arc<Shared>);

struct Shared {
    log: Arc<ContainerLog>,
    lines: Mutex<Lines>,
    last_line: Tag,
}

impl LogStream {
    /// `last_line` says how a last line without a newline is marked: `Partial` for a program that ends with its
    /// container, `Full` where other instances go on writing to the same log.
    pub(crate) fn new(log: Arc<ContainerLog>, source: Source, last_line: Tag) -> Self {
        Self(Arc::new(Shared { log, lines: Mutex::new(Lines::new(source)), last_line }))
    }

    fn push(&self, bytes: &[u8]) {
        let now = Timestamp::now();
        let mut lines = self.0.lines.lock();
        self.0.log.append(|log| lines.push(bytes, now, log));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lines = self.lines.get_mut();
        let last_line = self.last_line;
        self.log.append(|log| lines.finish(Timestamp::now(), last_line, log));
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Output { stream: self.clone(), waited: false })
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.0.log.poll_room(cx));
        let n = bytes.len().min(self.0.log.room().max(ONE_WRITE));
        self.push(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Output {
    stream: LogStream,
    waited: bool,
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.stream.0.log.poll_room(cx)).await;
        self.waited = true;
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.waited = false;
        self.stream.push(&bytes);
        Ok(())
    }

    /// Done at once: the log's buffer outlives the guest, and its end waits for it.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let granted = if self.waited { ONE_WRITE } else { 0 };
        Ok(self.stream.0.log.room().max(granted))
    }
}
