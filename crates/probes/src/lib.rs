//! How probes and hooks reach containers over the network: behind the core's [`ProbeTransport`]
//! (upstream: `pkg/probe/{http,tcp,grpc}`).
//!
//! Every request has a connection of its own, which ends with it. What a failure says is worded as Go's standard
//! library words it, because people and scripts know those words from `kubectl describe`.

mod connection;
mod dial;
mod grpc;
mod health;
mod http;
mod request;
mod text;
mod tls;

use std::time::Duration;

use async_trait::async_trait;
use coracle_core::ports::{GrpcCheck, HookError, HttpGet, ProbeOutcome, ProbeTransport, TcpConnect};
use tokio_rustls::TlsConnector;

/// Makes the requests, from the namespace that this process is in.
#[derive(Clone)]
pub struct Transport {
    /// As in `kube-probe/1.37`.
    version: String,
    tls: TlsConnector,
}

impl Transport {
    /// A transport whose requests say that they come from this version of Kubernetes, such as `v1.37.2`.
    ///
    /// # Errors
    /// TLS cannot be set up at all.
    pub fn new(kubernetes_version: &str) -> Result<Self, rustls::Error> {
        let version = kubernetes_version.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>();
        Ok(Self { version: version.join("."), tls: tls::connector_without_verification()? })
    }

    fn user_agent(&self, purpose: &str) -> String {
        format!("kube-{purpose}/{}", self.version)
    }
}

#[async_trait]
impl ProbeTransport for Transport {
    async fn http(&self, request: &HttpGet, timeout: Duration) -> ProbeOutcome {
        http::probe(&self.tls, request, &self.user_agent("probe"), timeout).await
    }

    async fn tcp(&self, request: &TcpConnect, timeout: Duration) -> ProbeOutcome {
        match dial::dial_timeout(&request.host, request.port, timeout).await {
            Ok(_) => ProbeOutcome::Success(String::new()),
            Err(error) => ProbeOutcome::Failure(error),
        }
    }

    async fn grpc(&self, request: &GrpcCheck, timeout: Duration) -> ProbeOutcome {
        grpc::probe(&self.tls, request, &self.user_agent("probe"), timeout).await
    }

    async fn http_hook(&self, request: &HttpGet) -> Result<(), HookError> {
        http::hook(&self.tls, request, &self.user_agent("lifecycle")).await
    }
}
