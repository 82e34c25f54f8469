//! A client of a node's own API, which does not pass through the apiserver.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fixture::Fixture;

/// A node's API, for who may do everything.
pub(crate) struct NodeApi {
    address: SocketAddr,
    tls: TlsConnector,
}

impl NodeApi {
    pub(crate) async fn new(fixture: &Fixture) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(fixture.control_plane().admin_kubeconfig())?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // The node has a certificate of its own.
        (config.root_cert, config.accept_invalid_certs) = (None, true);
        let mut tls: ClientConfig = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = (Ipv4Addr::LOCALHOST, fixture.node().port()).into();
        Ok(Self { address, tls: Arc::new(tls).into() })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let (requests, connection) =
            http1::handshake(TokioIo::new(self.tls.connect(name, stream).await?)).await?;
        // It ends with the requests.
        tokio::spawn(connection.with_upgrades());
        Ok(Connection { requests })
    }
}

/// A connection that is ready for requests.
pub(crate) struct Connection {
    requests: SendRequest<Empty<Bytes>>,
}

impl Connection {
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        let request = Request::get(path).header("host", "node").body(Empty::new())?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    pub(crate) async fn websocket(mut self, path: &str, protocol: &str) -> Result<WebSocket> {
        let request = Request::get(path)
            .header("host", "node")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(Empty::new())?;
        let response = self.requests.send_request(request).await?;
        ensure!(response.status() == StatusCode::SWITCHING_PROTOCOLS, "{path}: {}", response.status());
        Ok(WebSocket { io: TokioIo::new(hyper::upgrade::on(response).await?) })
    }
}

/// A WebSocket whose messages are whole frames, as this server writes them.
pub(crate) struct WebSocket {
    io: TokioIo<Upgraded>,
}

impl WebSocket {
    /// The next message; none at the end.
    pub(crate) async fn message(&mut self) -> Result<Option<Vec<u8>>> {
        const CLOSE: u8 = 8;
        let head = self.io.read_u16().await.context("the connection broke")?.to_be_bytes();
        let length = match head[1] {
            126 => self.io.read_u16().await?.into(),
            127 => self.io.read_u64().await?,
            length => length.into(),
        };
        let mut message = vec![0; usize::try_from(length)?];
        self.io.read_exact(&mut message).await?;
        Ok((head[0] & 0xf != CLOSE).then_some(message))
    }

    /// Sends a message of a channel.
    pub(crate) async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len() + 1)?.to_be_bytes();
        // A mask of zeros, which leaves everything as it is.
        let frame = [&[0x82, 0x80 | 127], &length[..], &[0; 4], &[channel], bytes].concat();
        self.io.write_all(&frame).await?;
        Ok(self.io.flush().await?)
    }
}
