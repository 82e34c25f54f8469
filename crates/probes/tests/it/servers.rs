//! Servers for one test each; they end when dropped.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// How a server speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// HTTP/2 without asking.
    H2c,
    /// TLS, and HTTP/1.1 under it.
    Tls,
    /// TLS, and HTTP/2 under it.
    TlsH2,
}

pub struct Server {
    pub port: u16,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers every request with what `handler` makes of it.
    pub async fn http<F, R>(speaks: Speaks, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let acceptor = matches!(speaks, Speaks::Tls | Speaks::TlsH2).then(|| acceptor(speaks));
        Self::tcp(move |stream| {
            let (handler, acceptor) = (handler.clone(), acceptor.clone());
            async move {
                match acceptor {
                    None => serve(TokioIo::new(stream), speaks == Speaks::H2c, handler).await,
                    Some(acceptor) => {
                        // A client may break the handshake off.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        serve(TokioIo::new(stream), speaks == Speaks::TlsH2, handler).await;
                    }
                }
            }
        })
        .await
    }

    /// Reads a request's first bytes and answers with these.
    pub async fn raw(answer: &'static [u8]) -> Self {
        Self::tcp(move |mut stream| async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        })
        .await
    }

    /// Hands every connection to `handler`.
    pub async fn tcp<F, R>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler(stream));
            }
        });
        Self { port, _tasks: tasks }
    }
}

async fn serve<I, F, R>(io: I, http2: bool, handler: F)
where
    I: Read + Write + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // How the connection ends is what the tests look at from the other side.
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

/// A certificate that nobody would believe.
fn acceptor(speaks: Speaks) -> TlsAcceptor {
    let key = rcgen::generate_simple_self_signed(vec!["elsewhere.example.com".into()]).unwrap();
    let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    if speaks == Speaks::TlsH2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    TlsAcceptor::from(Arc::new(config))
}

pub fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into()).boxed()).unwrap()
}

pub fn redirect(status: u16, location: &str, body: &'static str) -> Answer {
    Response::builder().status(status).header("location", location).body(Full::from(body).boxed()).unwrap()
}
