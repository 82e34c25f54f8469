//! Over SPDY/3.1: two streams for each connection, one for data and one for errors. After `httpstream.go`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Forward, Forwarder, Source};
use crate::connection::Connection;
use crate::spdy::{Headers, Settings, Stream, serve};
use crate::websocket::tunnel;
use crate::{Error, Timeouts};

/// A thousand connections at once.
const MAX_STREAMS: usize = 2000;

const DATA: &str = "data";
const ERROR: &str = "error";

pub(super) fn forwarder<T>(io: T, timeouts: Timeouts) -> Result<Forwarder, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (shared, opened, driver) = serve(io, settings(timeouts)).map_err(Error::Connection)?;
    let connection = Connection::spawn(&shared, driver);
    Ok(Forwarder { source: Source::Pairs(Pairs::new(opened, timeouts)), connection })
}

pub(super) fn tunnelled_forwarder<T>(io: T, timeouts: Timeouts) -> Result<Forwarder, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (inner, tunnel) = tunnel::new(io);
    let (shared, opened, driver) = serve(inner, settings(timeouts)).map_err(Error::Connection)?;
    let connection = Connection::spawn(&shared, async {
        tokio::join!(driver, tunnel);
    });
    Ok(Forwarder { source: Source::Pairs(Pairs::new(opened, timeouts)), connection })
}

fn settings(timeouts: Timeouts) -> Settings {
    Settings { idle_timeout: timeouts.idle, max_streams: MAX_STREAMS, admit: is_valid }
}

/// Whether a stream says what it is for (`httpStreamReceived`).
fn is_valid(headers: &Headers) -> bool {
    port(headers).is_some() && matches!(headers.get("streamType"), DATA | ERROR)
}

fn port(headers: &Headers) -> Option<u16> {
    headers.get("port").parse().ok().filter(|port| *port > 0)
}

/// Makes connections out of streams.
#[derive(Debug)]
pub(super) struct Pairs {
    opened: mpsc::Receiver<Stream>,
    timeout: Duration,
    /// In the order of their deadlines.
    incomplete: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    request: String,
    deadline: Instant,
    /// Which of the two it is, its headers tell.
    stream: Stream,
}

impl Pairs {
    fn new(opened: mpsc::Receiver<Stream>, timeouts: Timeouts) -> Self {
        Self { opened, timeout: timeouts.stream_creation, incomplete: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.incomplete.len()
    }

    pub(super) async fn next(&mut self) -> Option<Forward> {
        loop {
            let deadline = self.incomplete.first().map(|pair| pair.deadline);
            tokio::select! {
                stream = self.opened.recv() => {
                    if let Some(forward) = self.add(stream?) {
                        return Some(forward);
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.expire().await;
                }
            }
        }
    }

    fn add(&mut self, mut stream: Stream) -> Option<Forward> {
        let request = request_id(&stream);
        let Some(index) = self.incomplete.iter().position(|pair| pair.request == request) else {
            // Streams that were reset wait here as well, so their number has to be bounded.
            if self.incomplete.len() == MAX_STREAMS {
                self.incomplete.remove(0);
            }
            let deadline = Instant::now() + self.timeout;
            self.incomplete.push(Pair { request, deadline, stream });
            return None;
        };
        let first = &self.incomplete[index].stream;
        if first.headers.get("streamType") == stream.headers.get("streamType") {
            stream.write.reset();
            return None;
        }
        let first = self.incomplete.remove(index).stream;
        let (data, error) =
            if first.headers.get("streamType") == DATA { (first, stream) } else { (stream, first) };
        let port = port(&data.headers)?;
        Some(Forward::new(port, data.read, data.write, error.write))
    }

    /// Gives up the pair that has waited the longest.
    async fn expire(&mut self) {
        let Pair { request, mut stream, .. } = self.incomplete.remove(0);
        if stream.headers.get("streamType") == ERROR {
            let message = format!("(request={request}) timed out waiting for streams");
            let _ = stream.write.write_all(message.as_bytes()).await;
            stream.write.finish();
        }
        stream.write.reset();
    }
}

/// What the two streams of a connection have in common. Clients that do not say it open them one after the other, the
/// error stream first (`requestID`).
fn request_id(stream: &Stream) -> String {
    match (stream.headers.get("requestID"), stream.headers.get("streamType")) {
        ("", DATA) => stream.id.saturating_sub(2).to_string(),
        ("", _) => stream.id.to_string(),
        (id, _) => id.to_owned(),
    }
}
