//! Outgoing HTTP requests of guests: from the pod's address, by the pod's names, under the pod's policy.

mod body;
mod connector;
mod error;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

pub(crate) use self::body::TimedBody;
use self::connector::{CONNECT_TIMEOUT, Connector};
use self::error::from_client;
use super::pod::PodNet;

pub(super) use self::tls::TlsTrust;

/// A client with the connections of one pod.
pub(super) type HttpClient = Client<Connector, WasiBody>;

/// What a request waits where the guest sets no limit.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an unused connection is kept, and how many of them to one peer.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS_PER_PEER: usize = 32;

/// Sends a request on a connection of the pod, a new one or one that is free. Must run in the pod's namespace.
pub(super) async fn send(
    net: Arc<PodNet>,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let connecting = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let between_bytes = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);

    let client = client(&net);
    let response = CONNECT_TIMEOUT.scope(connecting, client.request(request));
    // The client does not tell when it is connected, so the limits for both parts are added up here.
    let response = timeout(connecting.saturating_add(first_byte), response)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)?
        .map_err(|error| from_client(&error))?;
    Ok(response.map(|body| TimedBody::new(body, between_bytes).boxed_unsync()))
}

fn client(net: &Arc<PodNet>) -> HttpClient {
    let make = || {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_PEER)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(Connector::new(net));
        Ok::<_, std::convert::Infallible>(client)
    };
    match net.http_client.get_or_try_make(make) {
        Ok(client) => client,
        Err(never) => match never {},
    }
}
