//! A registry that does what a test tells it to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::bed::Pieces;
use crate::image::digest::Digest;

/// What came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Method, path and query.
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    /// The value of `Authorization`, or nothing.
    pub(super) fn authorization(&self) -> &str {
        self.headers.get("Authorization").map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A server that answers by a function. Dropping it ends it.
pub(super) struct Fake {
    /// As it stands in references.
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

impl Fake {
    pub(super) async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(None, answer).await
    }

    /// One that speaks TLS, and the PEM of the authority that its certificate is from.
    pub(super) async fn start_tls(
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Self::serve(Some(TlsAcceptor::from(Arc::new(config))), answer).await, made.cert.pem())
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), seen.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, log) = (answer.clone(), log.clone());
                    async move {
                        let line = format!("{} {}", request.method(), request.uri());
                        let headers = request.headers().clone();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let seen = Seen { line, headers, body: String::from_utf8_lossy(&body).into_owned() };
                        log.lock().push(seen.clone());
                        Ok::<_, Infallible>(answer(&seen))
                    }
                });
                let (connection, tls) = (hyper::server::conn::http1::Builder::new(), tls.clone());
                tokio::spawn(async move {
                    // Clients that do not like the certificate, and answers that break off, are part of the tests.
                    let _ = match tls {
                        None => connection.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            connection.serve_connection(TokioIo::new(stream), service).await
                        }
                    };
                });
            }
        });
        Self { host, seen, server }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How many requests had `part` in their first line.
    pub(super) fn count(&self, part: &str) -> usize {
        self.seen.lock().iter().filter(|seen| seen.line.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) fn ok(body: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(body.into()).boxed_unsync())
}

pub(super) fn status(status: u16, body: &'static str) -> Answer {
    Response::builder().status(status).body(Full::from(body).boxed_unsync()).unwrap()
}

pub(super) fn with_header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

/// Answers with the manifest or a blob of an image.
pub(super) fn serve(pieces: &Pieces, seen: &Seen) -> Answer {
    if seen.line.contains("/manifests/") {
        return ok(pieces.manifest().to_string());
    }
    let path = seen.line.split('?').next().unwrap();
    let blobs = pieces.layers.iter().chain([&pieces.config]);
    let blob = blobs.map(|(_, bytes)| bytes).find(|bytes| path.ends_with(Digest::of(bytes).as_str()));
    blob.map_or_else(|| status(404, ""), |bytes| ok(bytes.clone()))
}

/// The first bytes of `body`, and then the connection breaks.
pub(super) fn broken_off(body: &[u8], after: usize) -> Answer {
    let first = Bytes::copy_from_slice(&body[..after]);
    let stream = futures_stream(move |number| match number {
        0 => Some((Duration::ZERO, first.clone())),
        // The first piece has to be on its way before the end is.
        1 => Some((Duration::from_millis(100), Bytes::new())),
        _ => None,
    });
    let answer = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
    with_header(answer, "Content-Length", &body.len().to_string())
}

/// Pieces without end.
pub(super) fn endless() -> Answer {
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    let stream = futures_stream(move |_| Some((Duration::ZERO, piece.clone())));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
}

/// One piece, and then silence.
pub(super) fn stalling(first: &'static [u8]) -> Answer {
    let stream = futures_stream(move |number| match number {
        0 => Some((Duration::ZERO, Bytes::from_static(first))),
        _ => Some((Duration::from_secs(3600), Bytes::new())),
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
}

fn futures_stream(
    piece: impl Fn(u64) -> Option<(Duration, Bytes)> + Send + Sync + 'static,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    let piece = Arc::new(piece);
    futures::stream::unfold(0, move |number| {
        let piece = piece.clone();
        async move {
            let (pause, bytes) = piece(number)?;
            tokio::time::sleep(pause).await;
            Some((Ok(Frame::data(bytes)), number + 1))
        }
    })
}
