//! From a request to its response.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime_wasi_http::{Error, WasiBody};

use super::Service;
use super::instances::{End, Job};
use crate::network::TimedBody;

/// The header that tells a guest where its client connects from, as `address:port`. `wasi:http` has no other place for
/// it. What a client itself sends under this name is thrown away.
const REMOTE_ADDRESS: HeaderName = HeaderName::from_static("coracle-remote-address");

/// What a client is told. The container's log knows more.
const FAILED: &str = "the service failed\n";

impl Service {
    /// Has a request answered by an instance. `peer` is who sent it.
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: HeaderValue,
    ) -> Result<Response<WasiBody>, Infallible> {
        Ok(match admitted(request, peer) {
            Ok(request) => self.answer(request).await,
            Err((status, why)) => plain(status, why),
        })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<WasiBody> {
        let Some(turn) = self.turn().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being served\n");
        };
        let (responder, response) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let hold = Arc::new(Hold::new(self.in_flight.clone(), turn));
        let limit = self.limits.body_timeout;
        let request = request.map(|body| TimedBody::new(body, limit).boxed_unsync());
        self.clone().begin(Job { request, responder, end, hold: hold.clone() });
        match response.await {
            // Only a connection that is still HTTP can be answered further.
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.note(
                    "the service answered with 101: wasi:http cannot change the protocol of a connection",
                );
                plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
            }
            Ok(Ok(response)) => response.map(|body| Held { body, _hold: hold }.boxed_unsync()),
            Ok(Err(error)) => {
                self.note(&format!("the service answered a request with an error: {error}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
            }
            Err(_) => self.without_answer(ended.await.ok()),
        }
    }

    /// A place among the requests that are served. None if there was none for too long.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody is overtaken: what is given back while somebody waits is theirs.
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        tokio::time::timeout(self.limits.queue_timeout, self.turns.clone().acquire_owned()).await.ok()?.ok()
    }

    /// The response to a request whose instance ended before it gave one.
    fn without_answer(&self, end: Option<End>) -> Response<WasiBody> {
        match end {
            Some(End::Returned) => {
                self.note("the service returned from a request without an answer to it");
                plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
            }
            Some(End::NoRoom) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "there is no room for the request now\n")
            }
            _ if self.killed.is_cancelled() => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping\n")
            }
            Some(End::Trapped) | None => plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED),
        }
    }
}

/// A request that takes part of a service's limits, until its answer is complete.
pub(super) struct Hold {
    in_flight: Arc<AtomicUsize>,
    _turn: OwnedSemaphorePermit,
}

impl Hold {
    fn new(in_flight: Arc<AtomicUsize>, turn: OwnedSemaphorePermit) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self { in_flight, _turn: turn }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, and what is held until it ends.
struct Held {
    body: WasiBody,
    _hold: Arc<Hold>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Refusal = (StatusCode, &'static str);

/// The request as a guest gets it, or what is wrong with it.
fn admitted(mut request: Request<Incoming>, peer: HeaderValue) -> Result<Request<Incoming>, Refusal> {
    if request.method() == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "the service is no proxy: CONNECT is not supported\n"));
    }
    if wants_websocket(request.headers()) {
        let why = "the service cannot upgrade connections: wasi:http has no WebSocket\n";
        return Err((StatusCode::NOT_IMPLEMENTED, why));
    }
    let uri = named(request.uri(), request.headers())?;
    *request.uri_mut() = uri;
    request.headers_mut().insert(REMOTE_ADDRESS, peer);
    Ok(request)
}

/// Other upgrades may be ignored (RFC 9110, section 7.8), but who asks for this one understands no other answer.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let holds = |name: HeaderName, word: &str| {
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    headers.contains_key(UPGRADE) && holds(CONNECTION, "upgrade") && holds(UPGRADE, "websocket")
}

/// The URI with scheme and authority, which HTTP/1.1 has in a header. `wasi:http` has no requests without.
fn named(uri: &Uri, headers: &HeaderMap) -> Result<Uri, Refusal> {
    let authority = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes())
            .map_err(|_| (StatusCode::BAD_REQUEST, "the request's host is not valid\n"))?,
        (None, None) => return Err((StatusCode::BAD_REQUEST, "the request names no host\n")),
    };
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_| (StatusCode::BAD_REQUEST, "the request's target is not valid\n"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_request_is_named_by_its_target_or_its_host() {
        let host = headers(&[("host", "example.com:8080")]);
        let name =
            |uri: &str, headers: &HeaderMap| named(&uri.parse().unwrap(), headers).map(|u| u.to_string());
        assert_eq!(name("/a?b", &host).unwrap(), "http://example.com:8080/a?b");
        assert_eq!(name("http://other.example/", &host).unwrap(), "http://other.example/");
        assert_eq!(name("/", &headers(&[])).unwrap_err().0, StatusCode::BAD_REQUEST);
        assert_eq!(name("/", &headers(&[("host", "a b")])).unwrap_err().0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn only_a_websocket_s_upgrade_is_refused() {
        for (list, wants) in [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")][..], true),
            (&[("connection", "Upgrade"), ("upgrade", "h2c")], false),
            (&[("upgrade", "websocket")], false),
            (&[], false),
        ] {
            assert_eq!(wants_websocket(&headers(list)), wants, "{list:?}");
        }
    }
}
