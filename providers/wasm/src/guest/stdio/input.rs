//! Where a guest's input comes from.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::AsyncRead;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use super::pipe::PipeReader;

/// What one read gives at most: it is copied, and a guest may ask for any number.
const ONE_READ: usize = 64 << 10;

/// Standard input of one instance. All streams made from it share what comes.
pub(super) struct Input {
    pub(super) pipe: PipeReader,
    pub(super) is_terminal: bool,
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.pipe.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(P2Input(self.pipe.clone()))
    }
}

struct P2Input(PipeReader);

#[async_trait::async_trait]
impl Pollable for P2Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.0.poll_readable(cx)).await;
    }
}

impl InputStream for P2Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let cx = Context::from_waker(Waker::noop());
        if size == 0 || self.0.poll_readable(&cx).is_pending() {
            return Ok(Bytes::new());
        }
        match self.0.poll_take(&cx, size.min(ONE_READ)) {
            Poll::Ready(bytes) if bytes.is_empty() => Err(StreamError::Closed),
            Poll::Ready(bytes) => Ok(bytes.into()),
            // Another stream was faster.
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}
