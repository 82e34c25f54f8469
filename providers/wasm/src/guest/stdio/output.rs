//! Where a guest's output goes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::pipe::{PipeReader, PipeWriter, pipe};
use crate::logs::LogStream;

/// What a stream may take at once after it waited for room, even if another was faster meanwhile.
const ONE_WRITE: usize = 4096;

/// Those who follow an output. Each gets all of it from the moment that it joined; one who does not read makes the guest
/// wait, as a full log does, and nothing is lost.
#[derive(Default)]
pub(super) struct Followers(Mutex<List>);

#[derive(Default)]
struct List {
    pipes: Vec<PipeWriter>,
    has_ended: bool,
}

impl Followers {
    /// Joins in; after the end there is nothing to hear but that.
    pub(super) fn join(&self) -> PipeReader {
        let (writer, reader) = pipe();
        let mut list = self.0.lock();
        if !list.has_ended {
            list.pipes.push(writer);
        }
        reader
    }

    /// There is no more: they come to an end.
    pub(super) fn end(&self) {
        let mut list = self.0.lock();
        list.has_ended = true;
        list.pipes.clear();
    }

    fn room(&self) -> usize {
        self.0.lock().pipes.iter().map(PipeWriter::room).min().unwrap_or(usize::MAX)
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let list = self.0.lock();
        // Each of them has to know whom to wake.
        let waiting = list.pipes.iter().filter(|pipe| pipe.poll_room(cx).is_pending()).count();
        if waiting == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut list = self.0.lock();
        list.pipes.retain(PipeWriter::is_read);
        list.pipes.iter().for_each(|pipe| pipe.push(bytes));
    }
}

/// Standard output or standard error of one instance. All streams made from it write to the same lines.
#[derive(Clone)]
pub(crate) struct Output {
    /// None for a command that was run beside the container's own program.
    pub(super) log: Option<LogStream>,
    pub(super) followers: Arc<Followers>,
    pub(super) is_terminal: bool,
}

impl Output {
    fn room(&self) -> usize {
        let log = self.log.as_ref().map_or(usize::MAX, LogStream::room);
        log.min(self.followers.room()).min(ONE_WRITE << 4)
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let log = self.log.as_ref().map_or(Poll::Ready(()), |log| log.poll_room(cx));
        let followers = self.followers.poll_room(cx);
        if log.is_ready() && followers.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn push(&self, bytes: &[u8]) {
        if let Some(log) = &self.log {
            log.push(bytes);
        }
        if self.is_terminal {
            self.followers.push(&carriage_returned(bytes));
        } else {
            self.followers.push(bytes);
        }
    }
}

/// What a terminal shows: the client's own one does nothing to what it gets.
pub(super) fn carriage_returned(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(byte);
    }
    shown
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(P2Output { output: self.clone(), waited: false })
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_room(cx));
        let n = bytes.len().min(self.room().max(ONE_WRITE));
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

struct P2Output {
    output: Output,
    waited: bool,
}

#[async_trait::async_trait]
impl Pollable for P2Output {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.output.poll_room(cx)).await;
        self.waited = true;
    }
}

impl OutputStream for P2Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.waited = false;
        self.output.push(&bytes);
        Ok(())
    }

    /// Done at once: what takes the output outlives the guest.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let granted = if self.waited { ONE_WRITE } else { 0 };
        Ok(self.output.room().max(granted))
    }
}
