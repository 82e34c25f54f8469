//! A server under test, and clients for it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_core::ports::AccessReviewer;
use coracle_server::{
    Authentication, Authorization, CertificatePair, KubeletAuth, ServerOptions, TlsError, TlsMinVersion,
    TlsOptions, TokenWebhook, listen_and_serve_kubelet_server,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::fakes::{FakeHost, FakeReviewer};
use crate::pki::{Ca, Identity};

/// What a test may change of a server.
pub(crate) struct Setup {
    pub(crate) host: Arc<FakeHost>,
    pub(crate) options: ServerOptions,
    pub(crate) anonymous: bool,
    pub(crate) min_version: TlsMinVersion,
    pub(crate) cipher_suites: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            host: Arc::default(),
            options: ServerOptions::default(),
            anonymous: false,
            min_version: TlsMinVersion::Tls12,
            cipher_suites: vec![],
        }
    }
}

/// A running server. Dropping it ends it.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// The authority of its clients.
    pub(crate) client_ca: Ca,
    /// The authority of its own certificate.
    pub(crate) server_ca: Ca,
    pub(crate) reviewer: Arc<FakeReviewer>,
    pub(crate) files: Files,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), TlsError>>,
}

/// The files that it reads.
pub(crate) struct Files {
    pub(crate) certificate: CertificatePair,
    pub(crate) client_ca: PathBuf,
    _directory: tempfile::TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl TestServer {
    pub(crate) async fn start(setup: Setup) -> Self {
        let (client_ca, server_ca) = (Ca::new("clients"), Ca::new("servers"));
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let files = Files {
            certificate: CertificatePair { cert_file: path("server.crt"), key_file: path("server.key") },
            client_ca: path("ca.crt"),
            _directory: directory,
        };
        fs::write(&files.client_ca, &client_ca.pem).unwrap();
        write_pair(&files.certificate, &server_ca.server());

        let reviewer = Arc::new(FakeReviewer::default());
        let shared: Arc<dyn AccessReviewer> = reviewer.clone();
        let webhook = TokenWebhook { reviewer: shared.clone(), cache_ttl: Duration::from_secs(120) };
        let authentication = Authentication {
            client_ca_file: Some(files.client_ca.clone()),
            webhook: Some(webhook),
            anonymous: setup.anonymous,
        };
        let authorization = Authorization::Webhook {
            reviewer: shared,
            cache_authorized_ttl: Duration::from_secs(300),
            cache_unauthorized_ttl: Duration::from_secs(30),
        };
        let auth = KubeletAuth::new("node-1", authentication, authorization).unwrap();
        let tls = TlsOptions {
            certificate: files.certificate.clone(),
            min_version: setup.min_version,
            cipher_suites: setup.cipher_suites,
            curve_preferences: vec![],
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serve =
            listen_and_serve_kubelet_server(listener, tls, auth, setup.host, setup.options, shutdown.clone());
        let serving = tokio::spawn(serve);
        Self { address, client_ca, server_ca, reviewer, files, shutdown, serving }
    }

    /// A TLS configuration that trusts this server.
    pub(crate) fn client_config(&self, identity: Option<&Identity>, alpn: &str) -> ClientConfig {
        client_config(&self.server_ca, identity, alpn)
    }

    pub(crate) async fn tls(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub(crate) async fn http1(&self, identity: Option<&Identity>) -> Http1 {
        Http1::over(self.tls(self.client_config(identity, "http/1.1")).await.unwrap()).await
    }

    pub(crate) async fn http2(&self, identity: Option<&Identity>) -> Http2 {
        let stream = self.tls(self.client_config(identity, "h2")).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Http2 { sender, _connection: tokio::spawn(connection) }
    }

    /// A client that may do everything.
    pub(crate) async fn admin(&self) -> Http1 {
        self.http1(Some(&self.client_ca.client("admin"))).await
    }
}

pub(crate) fn client_config(server_ca: &Ca, identity: Option<&Identity>, alpn: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(server_ca.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.into()];
    config
}

pub(crate) fn write_pair(files: &CertificatePair, identity: &Identity) {
    fs::write(&files.cert_file, &identity.chain_pem).unwrap();
    fs::write(&files.key_file, &identity.key_pem).unwrap();
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Status and body.
    pub(crate) fn is(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.body)
    }
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

/// A connection over HTTP/1.1.
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Body>,
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

impl Http1 {
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(connection.with_upgrades()) }
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        self.sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        Answer::read(self.send(request("GET", path, None)).await).await
    }

    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Answer {
        Answer::read(self.send(request).await).await
    }
}

/// A connection over HTTP/2.
pub(crate) struct Http2 {
    pub(crate) sender: http2::SendRequest<Body>,
    _connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    pub(crate) async fn send(&self, path: &str, token: Option<&str>) -> Response<Incoming> {
        let mut request = request("GET", &format!("https://localhost{path}"), token);
        request.headers_mut().remove("host");
        let mut sender = self.sender.clone();
        sender.ready().await.unwrap();
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        Answer::read(self.send(path, token).await).await
    }
}

/// The next bytes of a body that goes on; none at its end.
pub(crate) async fn next_chunk(body: &mut Incoming) -> Option<Bytes> {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("nothing comes");
    frame.map(|frame| frame.unwrap().into_data().unwrap())
}
