//! The ends of a stream inside a connection: what arrives is queued for a [`ReadHalf`], what a [`WriteHalf`] is given is
//! queued for the task that owns the connection.
//!
//! The queues themselves are unbounded; what they hold is not. Every chunk takes room from a budget of its connection,
//! one for each direction, and gives it back when it is consumed. Ends and resets take no room, so they can be sent from
//! `drop`, and there are at most two of them a stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;

/// The most bytes that travel in one piece.
pub(crate) const CHUNK: usize = 32 * 1024;

/// What a connection may hold in each direction, in bytes.
const ROOM: usize = 256 * 1024;

/// What a chunk costs besides its bytes, so that many small ones are bounded as well.
const OVERHEAD: usize = 128;

/// A budget for one direction of a connection.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM))
}

/// Room for a chunk of at most [`CHUNK`] bytes.
pub(crate) fn cost(length: usize) -> u32 {
    u32::try_from(length + OVERHEAD).unwrap_or(u32::MAX)
}

/// What the task that owns a connection is asked to send.
pub(crate) enum Command {
    /// Data of a stream.
    Data { stream: u32, bytes: Bytes, room: OwnedSemaphorePermit },
    /// No more data of a stream from this side.
    Finish { stream: u32 },
    /// The stream is of no more use to this side, in either direction.
    Reset { stream: u32 },
    /// A frame that is encoded already: replies of the side that reads.
    Encoded { frame: Vec<u8>, room: OwnedSemaphorePermit },
    /// The end of the connection, after everything above.
    Close,
}

/// What has arrived for a stream. A queue that ends without `End` or `Reset` lost its connection.
pub(crate) enum Arrival {
    Chunk { bytes: Bytes, room: OwnedSemaphorePermit },
    End,
    Reset,
}

/// What the client sends on a stream.
///
/// It ends when the client half-closes the stream. A stream that the client resets fails with `ConnectionReset`, a
/// connection that is lost or ends early with `ConnectionAborted`. Dropping it discards what still comes.
#[derive(Debug)]
pub struct ReadHalf {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    current: Option<(Bytes, OwnedSemaphorePermit)>,
    end: Option<Result<(), io::ErrorKind>>,
}

impl ReadHalf {
    pub(crate) fn new(arrivals: mpsc::UnboundedReceiver<Arrival>) -> Self {
        Self { arrivals, current: None, end: None }
    }

    /// Whether the client's end, or its failure, has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some((bytes, _)) = &mut self.current {
                let length = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..length]);
                bytes.advance(length);
                if bytes.is_empty() {
                    self.current = None;
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = self.end {
                return Poll::Ready(end.map_err(io::Error::from));
            }
            match ready!(self.arrivals.poll_recv(context)) {
                Some(Arrival::Chunk { bytes, room }) => self.current = Some((bytes, room)),
                Some(Arrival::End) => self.end = Some(Ok(())),
                Some(Arrival::Reset) => self.end = Some(Err(io::ErrorKind::ConnectionReset)),
                None => self.end = Some(Err(io::ErrorKind::ConnectionAborted)),
            }
        }
    }
}

/// What is sent to the client on a stream.
///
/// A write waits while the client reads too slowly. It fails with `BrokenPipe` once the connection has ended, and with
/// `ConnectionReset` once the client has reset the stream. Shutting it down, or dropping it, half-closes the stream after
/// everything written before.
#[derive(Debug)]
pub struct WriteHalf {
    stream: u32,
    commands: mpsc::UnboundedSender<Command>,
    room: PollSemaphore,
    /// Set by the side that reads, when the client resets the stream.
    reset: Arc<AtomicBool>,
    is_finished: bool,
}

impl WriteHalf {
    pub(crate) fn new(
        stream: u32,
        commands: mpsc::UnboundedSender<Command>,
        room: Arc<Semaphore>,
        reset: Arc<AtomicBool>,
    ) -> Self {
        Self { stream, commands, room: PollSemaphore::new(room), reset, is_finished: false }
    }

    /// Gives the stream up, in both directions.
    pub(crate) fn reset(&mut self) {
        self.is_finished = true;
        let _ = self.commands.send(Command::Reset { stream: self.stream });
    }

    /// Half-closes the stream.
    pub(crate) fn finish(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            let _ = self.commands.send(Command::Finish { stream: self.stream });
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(room) = ready!(self.room.poll_acquire_many(context, cost(bytes.len()))) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let command = Command::Data { stream: self.stream, bytes: Bytes::copy_from_slice(bytes), room };
        match self.commands.send(command) {
            Ok(()) => Poll::Ready(Ok(bytes.len())),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// What was written is on its way: there is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.finish();
    }
}
