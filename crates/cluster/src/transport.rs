//! HTTP to the apiserver.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use crate::counted::Counted;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// client-go's `ReadIdleTimeout` and `PingTimeout`: how a connection that died silently is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A client with connections of its own.
///
/// kube's own stack speaks only HTTP/1.1, where every watch takes a connection, and leaves Nagle's algorithm on. This
/// one multiplexes over HTTP/2, as client-go does, and falls back to HTTP/1.1 with a server that has no HTTP/2. It does
/// not retry: what is worth retrying, and when, only the callers know.
pub(crate) fn client(config: &Config) -> Result<Client, kube::Error> {
    let hyper: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector(config)?);
    let host = config.cluster_url.authority().map_or("", |authority| authority.as_str());
    let host: Arc<str> = host.into();
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .layer_fn(move |service| Counted::new(service, host.clone()))
        .service(hyper);
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn connector(config: &Config) -> Result<HttpsConnector<HttpConnector>, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // What the pings of HTTP/2 do, where there is only HTTP/1.1.
    http.set_keepalive(Some(PING_INTERVAL));
    http.set_keepalive_interval(Some(PING_TIMEOUT / 3));
    http.set_keepalive_retries(Some(3));
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));

    let mut builder =
        HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name = name.try_into().map_err(|e| kube::Error::Service(BoxError::from(e)))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_all_versions().wrap_connector(http))
}
