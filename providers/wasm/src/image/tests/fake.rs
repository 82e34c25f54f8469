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
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
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
