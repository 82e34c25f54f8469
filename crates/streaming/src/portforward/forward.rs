//! One connection to a port.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::{ReadHalf, WriteHalf};

/// A connection that the client wants to a port: what it sends is read, what is written goes to it.
///
/// Dropping it ends the connection in order. [`Forward::fail`] tells the client why there is none.
#[derive(Debug)]
pub struct Forward {
    port: u16,
    read: ReadHalf,
    write: WriteHalf,
    error: WriteHalf,
    is_shut_down: bool,
}

impl Forward {
    pub(super) fn new(port: u16, read: ReadHalf, write: WriteHalf, error: WriteHalf) -> Self {
        Self { port, read, write, error, is_shut_down: false }
    }

    /// The port of the pod.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the connection with a message for the client, who may end all others then.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn fail(mut self, message: &str) -> io::Result<()> {
        self.error.write_all(message.as_bytes()).await?;
        self.error.shutdown().await?;
        self.write.reset();
        Ok(())
    }
}

impl AsyncRead for Forward {
    /// Clients reset a stream that they have read to its end: that is no failure.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.read).poll_read(context, buffer));
        Poll::Ready(match result {
            Err(error) if self.is_shut_down && error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            result => result,
        })
    }
}

impl AsyncWrite for Forward {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut_down = true;
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}

impl Drop for Forward {
    /// Gives both streams up if the client has not ended its own, so that a long connection does not gather them.
    fn drop(&mut self) {
        self.error.finish();
        self.write.finish();
        if !self.read.has_ended() {
            self.write.reset();
        }
    }
}
