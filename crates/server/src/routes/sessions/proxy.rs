//! Sessions that a runtime serves at a URL of its own: the client's connection goes on to it, byte for byte (upstream:
//! apimachinery's `UpgradeAwareHandler`, which `getExec`, `getAttach` and `getPortForward` end in).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use coracle_streaming::Activity;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE, USER_AGENT};
use http::response::Parts;
use http::{StatusCode, Uri};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::about::About;
use crate::routes::App;
use crate::text::text;

/// How long the runtime may take to accept a connection and a session. Both are on this machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What is passed on of a refusal.
const MAX_REFUSAL: usize = 64 * 1024;

/// What is on its way in each direction.
const BUFFER: usize = 32 * 1024;

/// How long the other direction may go on when one has ended.
const LINGER: Duration = Duration::from_secs(5);

/// What the runtime has to know of a request. Credentials are for this kubelet, and stay here.
const PASSED_ON: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    USER_AGENT,
    HeaderName::from_static("x-stream-protocol-version"),
    HeaderName::from_static("sec-websocket-version"),
    HeaderName::from_static("sec-websocket-key"),
    HeaderName::from_static("sec-websocket-protocol"),
    HeaderName::from_static("sec-websocket-extensions"),
];

/// Why a runtime serves no session. None shows the URL: whoever knows it may use the session.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("the runtime's address for sessions is no URL")]
    NoUrl,
    #[error(
        "the runtime serves sessions over {0:?}, and this kubelet goes to plain HTTP on its own machine only: turn \
         TLS off for the runtime's streaming server"
    )]
    Scheme(String),
    #[error(
        "the runtime serves sessions at {0:?}, which is no address of this machine: make its streaming server listen \
         on 127.0.0.1"
    )]
    Elsewhere(String),
    #[error("cannot connect to the runtime's streaming server: {0}")]
    Connect(#[source] std::io::Error),
    #[error("the runtime's streaming server failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the runtime's streaming server did not answer in time")]
    TooSlow,
    #[error("invalid upgrade response: status code {0}")]
    NotUpgraded(u16),
}

/// Passes the session of `client` on to `url`, and answers what the runtime answers. `asked` is what [`passed_on`] made of
/// its request. The permit is kept until the session's end.
pub(super) async fn proxy(
    app: &Arc<App>,
    url: &str,
    asked: Request,
    client: OnUpgrade,
    permit: OwnedSemaphorePermit,
) -> Response {
    let asked = timeout(ANSWER_LIMIT, ask(&app.about, url, asked)).await;
    let (head, runtime) = match asked.unwrap_or(Err(ProxyError::TooSlow)) {
        Ok(Answer::Session(head, runtime)) => (head, runtime),
        Ok(Answer::Refusal(refusal)) => return refusal,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let (shutdown, idle) = (app.shutdown.clone(), app.timeouts.idle);
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = carry(client, runtime, idle) => {}
            () = shutdown.cancelled() => {}
        }
    });
    let mut accepted = Response::new(Body::empty());
    (*accepted.status_mut(), *accepted.headers_mut()) = (head.status, head.headers);
    accepted
}

/// What a runtime says to a session.
enum Answer {
    /// What it accepts it with, and the connection.
    Session(Parts, Upgraded),
    /// What it says instead, as it is.
    Refusal(Response),
}

/// Asks the runtime for the session.
async fn ask(about: &About, url: &str, mut asked: Request) -> Result<Answer, ProxyError> {
    let url: Uri = url.parse().map_err(|_| ProxyError::NoUrl)?;
    let authority = url.authority().ok_or(ProxyError::NoUrl)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(about, &url).await?)).await?;
    // It has ended when the session has begun.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    *asked.uri_mut() = url.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    asked.headers_mut().insert(HOST, authority.as_str().parse().map_err(|_| ProxyError::NoUrl)?);
    let (head, body) = sender.send_request(asked).await?.into_parts();
    match head.status {
        StatusCode::SWITCHING_PROTOCOLS => {
            let runtime = hyper::upgrade::on(http::Response::from_parts(head.clone(), body)).await?;
            Ok(Answer::Session(head, runtime))
        }
        status if status.is_client_error() || status.is_server_error() => {
            let body = to_bytes(Body::new(body), MAX_REFUSAL).await.unwrap_or_default();
            let mut refusal = Response::new(Body::from(body));
            *refusal.status_mut() = status;
            refusal.headers_mut().extend(head.headers.get(CONTENT_TYPE).map(|it| (CONTENT_TYPE, it.clone())));
            Ok(Answer::Refusal(refusal))
        }
        status => Err(ProxyError::NotUpgraded(status.as_u16())),
    }
}

/// What of a request a runtime is to see, without the address.
pub(super) fn passed_on(request: &Request) -> Request {
    let mut asked = Request::new(Body::empty());
    *asked.method_mut() = request.method().clone();
    for name in &PASSED_ON {
        for value in request.headers().get_all(name) {
            asked.headers_mut().append(name, value.clone());
        }
    }
    asked
}

/// Connects to a runtime that is on this machine.
async fn connect(about: &About, url: &Uri) -> Result<TcpStream, ProxyError> {
    // Without a scheme it is HTTP (`normalizeLocation`).
    let scheme = url.scheme_str().unwrap_or("http");
    if scheme != "http" {
        return Err(ProxyError::Scheme(scheme.to_owned()));
    }
    let host = url.host().ok_or(ProxyError::NoUrl)?;
    let port = url.port_u16().unwrap_or(80);
    let addresses: Vec<_> =
        own_addresses(about, host).into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() {
        return Err(ProxyError::Elsewhere(host.to_owned()));
    }
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(ProxyError::Connect)?;
    stream.set_nodelay(true).map_err(ProxyError::Connect)?;
    Ok(stream)
}

/// The addresses of this machine that a host stands for. Names stand for none: whoever answers for names could lead a
/// session away.
fn own_addresses(about: &About, host: &str) -> Vec<IpAddr> {
    const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match literal.parse::<IpAddr>() {
        // A server that listens on all addresses names itself so.
        Ok(address) if address.is_unspecified() => LOOPBACK.into(),
        Ok(address) if (about.is_own_address)(address) => vec![address],
        Err(_) if host == "localhost" => LOOPBACK.into(),
        _ => Vec::new(),
    }
}

/// Copies in both directions until one has ended, and a moment longer in the other, or until nothing was sent for so long
/// as `idle`; zero is for ever.
async fn carry(client: OnUpgrade, runtime: Upgraded, idle: Duration) {
    let client = match client.await {
        Ok(client) => client,
        Err(error) => {
            debug!(%error, "a session came to nothing");
            return;
        }
    };
    let (from_client, to_client) = split(TokioIo::new(client));
    let (from_runtime, to_runtime) = split(TokioIo::new(runtime));
    let activity = Activity::new();
    let mut input = pin!(pass(from_client, to_runtime, &activity));
    let mut output = pin!(pass(from_runtime, to_client, &activity));
    tokio::select! {
        () = &mut input => drop(timeout(LINGER, output).await),
        () = &mut output => drop(timeout(LINGER, input).await),
        () = activity.idle(idle) => {}
    }
}

/// Copies until the end of one side or an error of either, which the other learns as an end.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, activity: &Activity) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        activity.touch();
        if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
