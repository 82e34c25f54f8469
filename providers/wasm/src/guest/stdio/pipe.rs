//! A bounded pipe between a guest and somebody outside of it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much may wait in a pipe for its reader.
const CAPACITY: usize = 64 << 10;

/// A new pipe.
pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Mutex::new(State { writers: 1, readers: 1, ..State::default() }));
    (PipeWriter(shared.clone()), PipeReader(shared))
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    writers: usize,
    readers: usize,
    waiting: Vec<Waker>,
}

impl State {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len())
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// The end that is written to. The pipe ends when all clones of it are gone.
pub(crate) struct PipeWriter(Arc<Mutex<State>>);

impl PipeWriter {
    /// How many bytes it takes without waiting; without a reader any number, and they are lost.
    pub(super) fn room(&self) -> usize {
        let state = self.0.lock();
        if state.readers == 0 { CAPACITY } else { state.room() }
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.readers == 0 || state.room() > 0 {
            return Poll::Ready(());
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Writes all of it, also beyond the room that there is: whoever waited for some may use a little more. Without a
    /// reader it is lost.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if state.readers > 0 && !bytes.is_empty() {
            state.bytes.extend(bytes);
            state.wake();
        }
    }

    /// Whether anybody reads.
    pub(super) fn is_read(&self) -> bool {
        self.0.lock().readers > 0
    }
}

impl Clone for PipeWriter {
    fn clone(&self) -> Self {
        self.0.lock().writers += 1;
        Self(self.0.clone())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writers -= 1;
        if state.writers == 0 {
            state.wake();
        }
    }
}

/// For a client that writes: unlike a guest, it hears that nobody reads.
impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_room(cx));
        if !self.is_read() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(self.room().max(1));
        self.push(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing to do: the pipe ends when the writer is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The end that is read from. All clones of it share what comes; once they are gone what is written is lost.
pub(crate) struct PipeReader(Arc<Mutex<State>>);

impl PipeReader {
    /// At most `most` bytes, as many as there are; none at the end of the pipe.
    pub(super) fn poll_take(&self, cx: &Context<'_>, most: usize) -> Poll<Vec<u8>> {
        let mut state = self.0.lock();
        if state.bytes.is_empty() && state.writers > 0 {
            state.wait(cx);
            return Poll::Pending;
        }
        let n = state.bytes.len().min(most);
        let taken = state.bytes.drain(..n).collect();
        state.wake();
        Poll::Ready(taken)
    }

    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.bytes.is_empty() && state.writers > 0 {
            state.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Clone for PipeReader {
    fn clone(&self) -> Self {
        self.0.lock().readers += 1;
        Self(self.0.clone())
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readers -= 1;
        if state.readers == 0 {
            state.bytes = VecDeque::new();
            state.wake();
        }
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = std::task::ready!(self.poll_take(cx, buffer.remaining()));
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_pipe_makes_its_writer_wait_and_ends_with_it() {
        let (mut writer, mut reader) = pipe();
        writer.write_all(&vec![b'x'; CAPACITY]).await.unwrap();
        assert!(timeout(Duration::from_secs(1), writer.write_all(b"y")).await.is_err());
        let mut first = vec![0; CAPACITY];
        let (read, written) = tokio::join!(reader.read_exact(&mut first), writer.write_all(b"y"));
        read.unwrap();
        written.unwrap();
        let other = writer.clone();
        drop(writer);
        assert!(timeout(Duration::from_secs(1), reader.read_to_end(&mut Vec::new())).await.is_err());
        drop(other);
        assert_eq!(reader.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_reader_a_client_hears_of_it_and_a_guest_does_not_wait() {
        let (mut writer, reader) = pipe();
        writer.push(&vec![b'x'; CAPACITY]);
        assert_eq!(writer.room(), 0);
        drop(reader);
        writer.push(b"lost");
        assert_eq!(writer.room(), CAPACITY);
        assert_eq!(writer.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
