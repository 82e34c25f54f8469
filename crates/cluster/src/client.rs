//! The way to the apiserver that all adapters share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::ApiError;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Client, Config};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::error::{api_error, chain, undecodable};
use crate::kubeconfig::{self, ConnectError};
use crate::transport;
use coracle_core::token_bucket::TokenBucket;

/// Watches that share a connection. Servers and load balancers limit the streams of a connection (100 is the least that
/// HTTP/2 recommends), and requests above the limit would wait for a watch to end.
const WATCHES_PER_CONNECTION: usize = 100;

/// How to talk to the apiserver. The body is always JSON: `contentType` of a KubeletConfiguration has no say here.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `kubeAPIQPS`: calls a second in the long run, watches not counted. None, the default, or anything that is not
    /// positive is no limit: the server protects itself (API priority and fairness), and a limit here would only queue
    /// the status of a pod that just started behind others.
    pub qps: Option<f64>,
    /// `kubeAPIBurst`: calls at once, where there is a limit.
    pub burst: u32,
    /// How long a call may take.
    pub timeout: Duration,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            qps: None,
            burst: 100,
            timeout: Duration::from_secs(30),
            user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Reads a kubeconfig file and makes a client from it. No connection is made yet.
pub async fn connect(kubeconfig: &Path, options: ClientOptions) -> Result<Arc<ApiClient>, ConnectError> {
    let connections = Connections::load(kubeconfig, &options).await?;
    let limit = options.qps.filter(|qps| *qps > 0.0).map(|qps| TokenBucket::new(qps, options.burst));
    Ok(Arc::new(ApiClient {
        kubeconfig: kubeconfig.to_owned(),
        options,
        limit,
        connections: Arc::new(Mutex::new(connections)),
    }))
}

/// A client for the apiserver. Adapters ask it for the current connection each time they need one, so that
/// [`reload`](ApiClient::reload) reaches them all.
pub struct ApiClient {
    kubeconfig: PathBuf,
    options: ClientOptions,
    limit: Option<TokenBucket>,
    connections: Arc<Mutex<Connections>>,
}

impl ApiClient {
    /// Reads the kubeconfig file again: certificates and keys that were replaced on disk serve from the next request
    /// on. Watches that are open stay on the old connections until they end by themselves, within the hour.
    pub async fn reload(&self) -> Result<(), ConnectError> {
        let connections = Connections::load(&self.kubeconfig, &self.options).await?;
        *self.connections.lock() = connections;
        Ok(())
    }

    /// The same connections without the limit on calls, for heartbeats: they must not wait behind other calls.
    pub(crate) fn unlimited(&self) -> Self {
        Self {
            kubeconfig: self.kubeconfig.clone(),
            options: self.options.clone(),
            limit: None,
            connections: Arc::clone(&self.connections),
        }
    }

    /// The current client, for calls that no adapter here makes.
    pub fn kube(&self) -> Client {
        self.connections.lock().calls.clone()
    }

    /// A call whose answer does not matter beyond success.
    pub(crate) async fn send(&self, request: http::Request<Vec<u8>>) -> Result<(), ApiError> {
        self.text(request).await.map(drop)
    }

    /// A call with an answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<T, ApiError> {
        // Not kube's `Client::request`: it logs an answer that it cannot decode, secrets included.
        serde_json::from_str(&self.text(request).await?).map_err(|e| undecodable(&e))
    }

    async fn text(&self, request: http::Request<Vec<u8>>) -> Result<String, ApiError> {
        if let Some(limit) = &self.limit {
            limit.acquire().await;
        }
        let client = self.kube();
        self.in_time(client.request_text(request)).await.map_err(api_error)
    }

    /// A client for a watch. The watch counts on its connection until the lease is dropped.
    pub(crate) fn lease_for_watch(&self) -> kube::Result<WatchLease> {
        self.connections.lock().watches.lease()
    }

    /// Ends what takes longer than a call may.
    pub(crate) async fn in_time<T>(&self, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        tokio::time::timeout(self.options.timeout, call).await.unwrap_or_else(|_| {
            let seconds = self.options.timeout.as_secs_f32();
            Err(kube::Error::Service(format!("the apiserver did not answer within {seconds} s").into()))
        })
    }
}

struct Connections {
    calls: Client,
    watches: WatchConnections,
}

impl Connections {
    async fn load(path: &Path, options: &ClientOptions) -> Result<Self, ConnectError> {
        let mut config = kubeconfig::load(path).await?;
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| kubeconfig::invalid(path, "the user agent is not a header value".to_owned()))?;
        config.headers.push((USER_AGENT, user_agent));
        let calls = transport::client(&config).map_err(|e| kubeconfig::invalid(path, chain(&e)))?;
        Ok(Self { calls, watches: WatchConnections { config, connections: Vec::new() } })
    }
}

/// Connections for watches, as many as it takes.
struct WatchConnections {
    config: Config,
    connections: Vec<WatchLease>,
}

/// A client, and a count of those who hold it.
#[derive(Clone)]
pub(crate) struct WatchLease {
    pub(crate) client: Client,
    holders: Arc<()>,
}

impl WatchConnections {
    fn lease(&mut self) -> Result<WatchLease, kube::Error> {
        let free = |c: &&WatchLease| Arc::strong_count(&c.holders) <= WATCHES_PER_CONNECTION;
        if let Some(connection) = self.connections.iter().find(free) {
            return Ok(connection.clone());
        }
        let connection = WatchLease { client: transport::client(&self.config)?, holders: Arc::new(()) };
        self.connections.push(connection.clone());
        Ok(connection)
    }
}

#[cfg(test)]
impl ApiClient {
    /// A client whose requests all go to this one, and from there wherever it wants.
    pub(crate) fn through(client: Client) -> Self {
        let config = Config::new(http::Uri::from_static("http://localhost:1"));
        let lease = WatchLease { client: client.clone(), holders: Arc::new(()) };
        let watches = WatchConnections { config, connections: vec![lease] };
        Self {
            kubeconfig: PathBuf::new(),
            options: ClientOptions::default(),
            limit: None,
            connections: Arc::new(Mutex::new(Connections { calls: client, watches })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watches_share_connections_up_to_what_servers_allow() {
        let config = Config::new(http::Uri::from_static("http://localhost:1"));
        let mut watches = WatchConnections { config, connections: Vec::new() };
        let mut leases: Vec<_> = (0..250).map(|_| watches.lease().unwrap()).collect();
        assert_eq!(watches.connections.len(), 3);

        // Places that become free are taken again.
        leases.drain(..60);
        leases.extend((0..110).map(|_| watches.lease().unwrap()));
        assert_eq!(watches.connections.len(), 3);
        for connection in &watches.connections {
            assert_eq!(Arc::strong_count(&connection.holders) - 1, WATCHES_PER_CONNECTION);
        }
    }
}
