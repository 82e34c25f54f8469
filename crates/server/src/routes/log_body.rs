//! A log as the body of a response.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use coracle_core::host::ContainerLog;
use coracle_core::logs::{LogOptions, LogSink, LogStream, LogWatches, ReadLogsError, read_logs};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Content is handed to the connection in chunks of at least this, as long as there is more at once.
const CHUNK_SIZE: usize = 16 * 1024;

/// Reads a log while the client takes it. The reading happens in the polling of the body: there is no task, a slow
/// client slows the reading down, and a client that leaves takes everything with it.
pub(super) struct LogBody {
    /// None when it is over.
    reading: Option<BoxFuture<'static, Result<(), ReadLogsError>>>,
    chunks: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl LogBody {
    /// Ends with the log, or with `shutdown`.
    pub(super) fn new(
        log: ContainerLog,
        options: LogOptions,
        watches: Arc<LogWatches>,
        shutdown: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let reading = async move {
            let mut sink = ChunkSink { chunks: sender, held: BytesMut::new() };
            tokio::select! {
                read = read(&log.path, &options, &watches, log.ended, &mut sink) => read,
                () = shutdown.cancelled() => Ok(()),
            }
        };
        Self { reading: Some(reading.boxed()), chunks, _permit: permit }
    }
}

/// As upstream, what goes wrong after the answer has begun is told at its end.
async fn read(
    path: &Path,
    options: &LogOptions,
    watches: &LogWatches,
    ended: BoxFuture<'static, ()>,
    sink: &mut ChunkSink,
) -> Result<(), ReadLogsError> {
    let outcome = read_logs(path, options, watches, ended, sink).await;
    if let Err(error) = &outcome {
        sink.held.extend_from_slice(error.to_string().as_bytes());
        sink.flush().await.map_err(ReadLogsError::Sink)?;
    }
    outcome
}

impl Body for LogBody {
    type Data = Bytes;
    type Error = ReadLogsError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadLogsError>>> {
        if let Some(reading) = &mut self.reading
            && reading.poll_unpin(context).is_ready()
        {
            self.reading = None;
        }
        // Whatever makes the reading go on wakes this task; the channel itself need not.
        match self.chunks.try_recv() {
            Ok(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Err(_) if self.reading.is_some() => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    }
}

/// Gathers lines into chunks.
struct ChunkSink {
    chunks: mpsc::Sender<Bytes>,
    held: BytesMut,
}

impl LogSink for ChunkSink {
    async fn write(&mut self, _: LogStream, content: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(content);
        if self.held.len() >= CHUNK_SIZE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let chunk = self.held.split().freeze();
        self.chunks.send(chunk).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
