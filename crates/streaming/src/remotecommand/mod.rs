//! `exec` and `attach`: the streams of one command. After `remotecommand` of `k8s.io/cri-streaming`.

mod options;
mod resize;
mod spdy;
mod status;
mod websocket;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::connection::{CLOSE_LIMIT, Connection};
use crate::{Error, ReadHalf, Rejection, Timeouts, WriteHalf, negotiation};
pub use options::{NoStreams, Options};
pub use resize::{Resizes, TerminalSize};
pub use status::Outcome;

/// Judges a request to run or attach to a command.
///
/// The response has to be sent; [`Handshake::session`] waits for that.
///
/// # Errors
/// The request asks for no upgrade, or for no protocol that is supported.
pub fn accept<B>(
    request: &mut Request<B>,
    options: Options,
    timeouts: Timeouts,
) -> Result<(Response<String>, Handshake), Rejection> {
    let headers = request.headers();
    let (protocol, response) = if crate::websocket::is_requested(headers) {
        let (name, response) = crate::websocket::accept(headers, websocket::PROTOCOLS)?;
        (Protocol::WebSocket(name), response)
    } else {
        let (name, response) = negotiation::spdy(headers, spdy::PROTOCOLS)?;
        (Protocol::Spdy(name), response)
    };
    let upgrade = hyper::upgrade::on(request);
    Ok((response, Handshake { upgrade, protocol, options, timeouts }))
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Spdy(&'static str),
    WebSocket(&'static str),
}

/// A request that was accepted.
#[derive(Debug)]
#[must_use = "the client waits for its session"]
pub struct Handshake {
    upgrade: OnUpgrade,
    protocol: Protocol,
    options: Options,
    timeouts: Timeouts,
}

impl Handshake {
    /// The connection itself, for those who pass it on to somebody else who speaks the protocol.
    pub fn into_upgrade(self) -> OnUpgrade {
        self.upgrade
    }

    /// Waits until the response is sent and the client has opened its streams.
    ///
    /// # Errors
    /// The client is gone, does not keep to the protocol, or takes too long; the connection is closed.
    pub async fn session(self) -> Result<Session, Error> {
        let io = TokioIo::new(self.upgrade.await.map_err(Error::Upgrade)?);
        match self.protocol {
            Protocol::Spdy(name) => spdy::session(io, name, self.options, self.timeouts).await,
            Protocol::WebSocket(name) => websocket::session(io, name, self.options, self.timeouts).await,
        }
    }
}

/// A client that waits for a command.
///
/// Take the streams out of it. Those that nobody reads must be dropped: what fills up for one stalls all. Dropping the
/// session cuts the connection; [`Session::finish`] is the way to end it.
#[derive(Debug)]
pub struct Session {
    /// What the command reads.
    pub stdin: Option<ReadHalf>,
    /// What the command writes; with a terminal, all of it.
    pub stdout: Option<WriteHalf>,
    /// What the command writes to its standard error.
    pub stderr: Option<WriteHalf>,
    /// The sizes of the client's terminal.
    pub resizes: Option<Resizes>,
    /// Clients take the end of this for the end of the session.
    stdin_reply: Option<WriteHalf>,
    error: Option<WriteHalf>,
    has_json_status: bool,
    connection: Connection,
}

impl Session {
    /// Waits until the client is gone, or was idle for too long.
    pub async fn ended(&self) {
        self.connection.ended().await;
    }

    /// Sends what is left, tells the client the outcome, and closes the connection; 10 seconds at most for each.
    ///
    /// The command's output must be written before. Writers that are still held elsewhere fail from then on.
    pub async fn finish(mut self, outcome: &Outcome) {
        drop((self.stdin.take(), self.stdout.take(), self.stderr.take(), self.resizes.take()));
        if let Some(mut error) = self.error.take() {
            let status = if self.has_json_status { outcome.json() } else { outcome.text() };
            let _ = timeout(CLOSE_LIMIT, error.write_all(status.as_bytes())).await;
        }
        drop(self.stdin_reply.take());
        self.connection.close().await;
    }
}

#[cfg(test)]
mod tests;
