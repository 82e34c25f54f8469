//! A connection: one task that owns the socket, and the handle that owns the task.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::Activity;
use crate::pipe::{self, Command};

/// How long a client may take to read what is left, once this side has ended the connection.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long this side waits for the client to close its own. Closing at once could destroy what is on its way, as
/// unread bytes make the kernel reset the connection.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// What is gathered before it is written to the socket.
const BATCH: usize = 64 * 1024;

/// Replies to the client that may be unsent: pongs, acknowledged streams.
const REPLIES: usize = 64;

/// A client's connection. Dropping it cuts the connection: what was written may get lost.
#[derive(Debug)]
pub(crate) struct Connection {
    commands: mpsc::UnboundedSender<Command>,
    ended: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Runs the future that [`drive`]s the connection.
    pub(crate) fn spawn(shared: &Shared, driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            commands: shared.commands.clone(),
            ended: shared.ended.clone(),
            task: AbortOnDropHandle::new(tokio::spawn(driver)),
        }
    }

    /// Waits until the client is gone, or was idle for too long.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until all is done that is left to do, after the connection has ended.
    pub(crate) async fn finished(&mut self) {
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }

    /// Sends what was written, ends the connection, and waits until the client has taken note; 10 seconds at most.
    pub(crate) async fn close(self) {
        let _ = self.commands.send(Command::Close);
        let _ = timeout(CLOSE_LIMIT, self.task).await;
    }
}

/// What the parts of one connection have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Budget of what was read for the streams.
    pub(crate) read_room: Arc<Semaphore>,
    /// Budget of what was written to the streams.
    pub(crate) write_room: Arc<Semaphore>,
    pub(crate) activity: Activity,
    replies: Arc<Semaphore>,
    ended: CancellationToken,
}

impl Shared {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, queue) = mpsc::unbounded_channel();
        let shared = Self {
            commands,
            read_room: pipe::room(),
            write_room: pipe::room(),
            activity: Activity::new(),
            replies: Arc::new(Semaphore::new(REPLIES)),
            ended: CancellationToken::new(),
        };
        (shared, queue)
    }

    /// Sends a frame of the side that reads. It waits while the client floods it with what needs replies.
    pub(crate) async fn reply(&self, frame: Vec<u8>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let room = self.replies.clone().acquire_owned().await.map_err(gone)?;
        self.commands.send(Command::Encoded { frame, room }).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// How a protocol puts on the wire what handles ask for.
pub(crate) trait Encoder {
    fn data(&mut self, stream: u32, bytes: &[u8], out: &mut Vec<u8>);
    /// Whether that was the last stream, and the connection with it.
    fn finish(&mut self, stream: u32, out: &mut Vec<u8>) -> bool;
    /// The same.
    fn reset(&mut self, stream: u32, out: &mut Vec<u8>) -> bool;
    fn close(&mut self, out: &mut Vec<u8>);
}

/// Writes until it is told to close.
pub(crate) async fn write(
    mut io: impl AsyncWrite + Unpin,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut encoder: impl Encoder,
    activity: Activity,
) -> io::Result<()> {
    let mut out = Vec::new();
    while let Some(first) = commands.recv().await {
        let mut is_closed = encode(&mut encoder, first, &mut out);
        while !is_closed && out.len() < BATCH {
            let Ok(next) = commands.try_recv() else { break };
            is_closed = encode(&mut encoder, next, &mut out);
        }
        io.write_all(&out).await?;
        io.flush().await?;
        activity.touch();
        out.clear();
        if is_closed {
            return io.shutdown().await;
        }
    }
    Ok(())
}

/// Whether the connection ends with it.
fn encode(encoder: &mut impl Encoder, command: Command, out: &mut Vec<u8>) -> bool {
    let is_end = match command {
        Command::Data { stream, bytes, room } => {
            encoder.data(stream, &bytes, out);
            drop(room);
            false
        }
        Command::Encoded { frame, room } => {
            out.extend_from_slice(&frame);
            drop(room);
            false
        }
        Command::Finish { stream } => encoder.finish(stream, out),
        Command::Reset { stream } => encoder.reset(stream, out),
        Command::Close => true,
    };
    if is_end {
        encoder.close(out);
    }
    is_end
}

/// Runs both directions until the connection is at its end.
pub(crate) async fn drive(
    shared: Shared,
    idle_timeout: Duration,
    read: impl Future<Output = io::Result<()>>,
    write: impl Future<Output = io::Result<()>>,
) {
    let end = End { _ended: shared.ended.clone().drop_guard(), room: shared.write_room.clone() };
    let (mut read, mut write) = (pin!(read), pin!(write));
    tokio::select! {
        written = &mut write => {
            drop(end);
            if written.is_ok() {
                let _ = timeout(LINGER, read).await;
            }
            return;
        }
        // The client is gone, or does not keep to the protocol.
        _ = &mut read => {}
        () = shared.activity.idle(idle_timeout) => {}
    }
    drop(end);
    let _ = shared.commands.send(Command::Close);
    let _ = timeout(LINGER, write).await;
}

/// The end of the connection, also if its task is aborted: nobody may wait for it any longer.
struct End {
    _ended: DropGuard,
    room: Arc<Semaphore>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.room.close();
    }
}
