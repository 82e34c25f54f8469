//! The server side of SPDY/3.1, as far as Kubernetes speaks it: `github.com/moby/spdystream` is the other side.
//!
//! The client opens all streams, with headers; this side accepts them with a reply that has none. Settings and windows
//! are read and not obeyed, as the client's library has neither: a server that kept to windows would wait for ever.

mod dictionary;
mod frame;
mod headers;
mod reader;
mod table;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::connection::{Shared, drive, write};
use crate::pipe::{ReadHalf, WriteHalf};
pub(crate) use headers::Headers;
use reader::Reader;
use table::Table;

/// Streams that are opened and not taken yet; then the connection waits.
const OPENED: usize = 16;

/// What the client did that ends the connection.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("a frame of SPDY version {0}: only 3 is supported")]
    Version(u16),
    #[error("a control frame of {0} bytes: too large")]
    FrameTooLarge(usize),
    #[error("a control frame is too short for its type")]
    ShortFrame,
    #[error("a header block cannot be decompressed")]
    Compression,
    #[error("a header block is malformed")]
    HeaderBlock,
    #[error("a header block is too large")]
    HeadersTooLarge,
    #[error("too many headers")]
    TooManyHeaders,
}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(io::ErrorKind::InvalidData, violation)
    }
}

/// What holds for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Without a frame for so long, the connection ends; zero is for ever.
    pub(crate) idle_timeout: Duration,
    /// The most streams that are open at once; more are refused.
    pub(crate) max_streams: usize,
    /// Whether a stream with such headers is accepted, or reset.
    pub(crate) admit: fn(&Headers) -> bool,
}

/// A stream that the client has opened.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) read: ReadHalf,
    pub(crate) write: WriteHalf,
}

/// A connection over a byte stream: what its parts share, the streams that the client opens, and the future that does
/// the work.
pub(crate) fn serve<T>(
    io: T,
    settings: Settings,
) -> io::Result<(Shared, mpsc::Receiver<Stream>, impl Future<Output = ()> + Send)>
where
    T: AsyncRead + AsyncWrite + Send,
{
    let (shared, commands) = Shared::new();
    let (opened, streams) = mpsc::channel(OPENED);
    let table = Table::default();
    let (input, output) = tokio::io::split(io);
    let reader = Reader::new(input, settings, shared.clone(), table.clone(), opened)?;
    let writing = write(output, commands, table, shared.activity.clone());
    let driver = drive(shared.clone(), settings.idle_timeout, reader.run(), writing);
    Ok((shared, streams, driver))
}

#[cfg(test)]
pub(crate) mod tests;
