//! The server side of Kubernetes' streaming protocols, over connections that hyper has upgraded.
//!
//! - [`remotecommand`]: `exec` and `attach`, over SPDY/3.1 (versions 1 to 4) and WebSocket (`channel.k8s.io`, with base64,
//!   v4 and v5).
//! - [`portforward`]: over SPDY/3.1, over WebSocket channels, and SPDY/3.1 tunnelled through WebSocket.
//!
//! Each has an `accept` that judges a request and makes the response to it, and a future to await once the response is on
//! its way: it resolves to the streams. What the streams are connected to is the caller's business; this crate knows
//! no pods and no containers.
//!
//! The contract is `k8s.io/cri-streaming` and `k8s.io/streaming` of Kubernetes 1.37, and the clients in `client-go`.
//!
//! # Memory and slow peers
//!
//! Kubernetes' peers neither send nor obey SPDY's windows, so TCP is the only flow control there is. A connection holds
//! at most 256 KiB that was read for streams and as much that was written to them, however many streams it has. When a
//! stream is not read, that fills and the whole connection waits: that is why streams that nobody reads must be dropped.
//!
//! # Tasks
//!
//! A connection has one task, owned by the session or the forwarder. Dropping that ends it.

mod activity;
mod connection;
mod negotiation;
mod pipe;
pub mod portforward;
pub mod remotecommand;
mod spdy;
mod websocket;

use std::io;
use std::time::Duration;

pub use activity::Activity;
pub use negotiation::Rejection;
pub use pipe::{ReadHalf, WriteHalf};

/// How long clients may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// A connection on which nothing happens for so long is ended; zero is for ever.
    pub idle: Duration,
    /// To open the streams that belong together.
    pub stream_creation: Duration,
}

/// Upstream's: 4 hours, and 30 seconds.
impl Default for Timeouts {
    fn default() -> Self {
        Self { idle: Duration::from_secs(4 * 60 * 60), stream_creation: Duration::from_secs(30) }
    }
}

/// Why an accepted request came to nothing. There is nobody to tell: the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The response was not sent, or the server does not hand connections over.
    #[error("the connection was not upgraded: {0}")]
    Upgrade(#[source] hyper::Error),
    /// The connection failed at its start.
    #[error("the connection failed: {0}")]
    Connection(#[source] io::Error),
    /// The client closed the connection, or broke the protocol.
    #[error("the client left before it had opened its streams")]
    ClientGone,
    /// The client was too slow.
    #[error("timed out waiting for client to create streams")]
    StreamCreationTimeout,
}
