//! Connections for outgoing requests.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::DEFAULT_TIMEOUT;
use super::error::ConnectError;
use crate::network::pod::PodNet;
use crate::network::policy::{Refusal, Transport};
use crate::network::socket;

tokio::task_local! {
    /// How long the request that is being sent may wait for a connection. The client passes a connector nothing but
    /// the address, but asks for the connection within the task of the request.
    pub(super) static CONNECT_TIMEOUT: Duration;
}

/// A connection, with or without TLS.
pub(in crate::network) type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes the connections of one pod.
#[derive(Clone)]
pub(in crate::network) struct Connector {
    /// Weak, because the pod's network holds the client that holds this.
    net: Weak<PodNet>,
}

impl Connector {
    pub(super) fn new(net: &Arc<PodNet>) -> Self {
        Self { net: Arc::downgrade(net) }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Connection;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let net = self.net.upgrade();
        let limit = CONNECT_TIMEOUT.try_get().unwrap_or(DEFAULT_TIMEOUT);
        Box::pin(async move {
            let net = net.ok_or(ConnectError::PodGone)?;
            timeout(limit, connect(&net, &uri)).await.map_err(|_| ConnectError::Timeout)?
        })
    }
}

async fn connect(net: &PodNet, uri: &Uri) -> Result<Connection, ConnectError> {
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let host = uri.host().ok_or(ConnectError::HostName)?;
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });

    let stream = TokioIo::new(connect_tcp(net, host, port).await?);
    if !is_https {
        return Ok(MaybeHttpsStream::Http(stream));
    }
    let server = host.trim_start_matches('[').trim_end_matches(']');
    let stream = net.tls.connect(server, TokioIo::new(stream)).await?;
    Ok(MaybeHttpsStream::Https(TokioIo::new(stream)))
}

/// Connects to the first address of the host that answers.
async fn connect_tcp(net: &PodNet, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let mut failure = ConnectError::HostName;
    for ip in net.resolve(host).await? {
        match connect_to(net, (ip, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_to(net: &PodNet, wanted: SocketAddr) -> Result<TcpStream, ConnectError> {
    if !net.is_right_thread() {
        return Err(ConnectError::WrongThread);
    }
    let destination = net.destination(wanted)?;
    let target = net.target(destination, Transport::Tcp)?;
    if !net.permits(target, SocketAddrUse::TcpConnect) {
        return Err(Refusal::Prohibited.into());
    }
    let source = net.source_ip(destination).map(|ip| (ip, 0).into());
    let stream = socket::outgoing(source, target)?.connect(target).await?;
    // Requests are written in whole pieces: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}
