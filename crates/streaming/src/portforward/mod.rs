//! Port-forward: many connections to ports of one pod, over one connection of the client. After `portforward` of
//! `k8s.io/cri-streaming`.

mod forward;
mod spdy;
mod websocket;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::connection::Connection;
use crate::{Error, Rejection, Timeouts, negotiation};
pub use forward::Forward;
use spdy::Pairs;

/// Over SPDY/3.1.
const V1: &str = "portforward.k8s.io";

/// SPDY/3.1 that is tunnelled through a WebSocket.
const TUNNELLED_V1: &str = "SPDY/3.1+portforward.k8s.io";

/// Judges a request to forward ports.
///
/// The response has to be sent; [`Handshake::forwarder`] waits for that.
///
/// # Errors
/// The request asks for no upgrade, for no protocol that is supported, or for no ports where it has to name them.
pub fn accept<B>(
    request: &mut Request<B>,
    timeouts: Timeouts,
) -> Result<(Response<String>, Handshake), Rejection> {
    let headers = request.headers();
    let (protocol, response) = if !crate::websocket::is_requested(headers) {
        let (_, response) = negotiation::spdy(headers, &[V1])?;
        (Protocol::Spdy, response)
    } else if asks_for_tunnel(headers) {
        let (_, response) = crate::websocket::accept(headers, &[TUNNELLED_V1])?;
        (Protocol::Tunnel, response)
    } else {
        let ports = websocket::ports(request.uri().query().unwrap_or_default())?;
        let (name, response) = crate::websocket::accept(headers, websocket::PROTOCOLS)?;
        (Protocol::WebSocket(name, ports), response)
    };
    let upgrade = hyper::upgrade::on(request);
    Ok((response, Handshake { upgrade, protocol, timeouts }))
}

/// Whether a WebSocket is to carry SPDY (`IsWebSocketRequestWithTunnelingProtocol`).
fn asks_for_tunnel(headers: &HeaderMap) -> bool {
    let protocols = negotiation::list(headers, &SEC_WEBSOCKET_PROTOCOL);
    protocols.iter().any(|protocol| protocol.starts_with("SPDY/3.1+") && protocol.ends_with(".k8s.io"))
}

#[derive(Debug)]
enum Protocol {
    Spdy,
    Tunnel,
    WebSocket(&'static str, Vec<u16>),
}

/// A request that was accepted.
#[derive(Debug)]
#[must_use = "the client waits for its ports"]
pub struct Handshake {
    upgrade: OnUpgrade,
    protocol: Protocol,
    timeouts: Timeouts,
}

impl Handshake {
    /// The ports that the request names. With SPDY it names none: the client does that for each connection.
    pub fn ports(&self) -> &[u16] {
        match &self.protocol {
            Protocol::WebSocket(_, ports) => ports,
            Protocol::Spdy | Protocol::Tunnel => &[],
        }
    }

    /// The connection itself, for those who pass it on to somebody else who speaks the protocol.
    pub fn into_upgrade(self) -> OnUpgrade {
        self.upgrade
    }

    /// Waits until the response is sent.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn forwarder(self) -> Result<Forwarder, Error> {
        let io = TokioIo::new(self.upgrade.await.map_err(Error::Upgrade)?);
        match self.protocol {
            Protocol::Spdy => spdy::forwarder(io, self.timeouts),
            Protocol::Tunnel => spdy::tunnelled_forwarder(io, self.timeouts),
            Protocol::WebSocket(name, ports) => websocket::forwarder(io, name, &ports, self.timeouts).await,
        }
    }
}

/// A client that forwards ports. Dropping it cuts the connection, with everything that is forwarded.
#[derive(Debug)]
pub struct Forwarder {
    source: Source,
    connection: Connection,
}

/// Where connections come from.
#[derive(Debug)]
enum Source {
    /// The client makes them when it likes.
    Pairs(Pairs),
    /// The request named them all.
    Named(std::vec::IntoIter<Forward>),
}

impl Forwarder {
    /// The next connection that the client wants, or `None` once there will be no more: it is gone or was idle for too
    /// long, or the request named its ports and the last of them is done. It may be cancelled: nothing gets lost.
    pub async fn next(&mut self) -> Option<Forward> {
        let next = match &mut self.source {
            Source::Pairs(pairs) => pairs.next().await,
            Source::Named(forwards) => forwards.next(),
        };
        if next.is_none() {
            self.connection.finished().await;
        }
        next
    }

    /// Ends the connection in order.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

#[cfg(test)]
mod tests;
