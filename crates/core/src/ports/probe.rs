//! How probes and hooks reach a container over the network (upstream: `pkg/probe/{http,tcp,grpc}`).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// What is kept of anything that a probed container answers, in bytes (`maxRespBodyLength`).
pub const MAX_PROBE_OUTPUT: usize = 10 << 10;

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// With TLS; nobody looks at the certificate.
    Https,
}

impl Scheme {
    /// As a URL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A GET.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpGet {
    /// The scheme.
    pub scheme: Scheme,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query as the user wrote them; may lack the leading slash.
    pub path: String,
    /// Headers as the user wrote them. `Host` replaces the one of the URL; an empty `User-Agent` or `Accept` sends none.
    pub headers: Vec<(String, String)>,
    /// Speak HTTP/2 without asking (h2c); over TLS that is always negotiated.
    pub http2: bool,
}

impl fmt::Debug for HttpGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of headers may be credentials.
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpGet")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("path", &self.path)
            .field("headers", &headers)
            .field("http2", &self.http2)
            .finish()
    }
}

/// A connection that is opened and closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConnect {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The service that is asked for; empty for the server as a whole.
    pub service: String,
    /// Whether to use TLS; nobody looks at the certificate.
    pub tls: bool,
}

/// What became of one probe, with at most [`MAX_PROBE_OUTPUT`] bytes about it (`probe.Result`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It is well.
    Success(String),
    /// It is well, but somebody should look at it.
    Warning(String),
    /// It is not well.
    Failure(String),
    /// The probe could not be made: this says nothing about the container.
    Unknown(String),
}

/// Why the request of a hook failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The server speaks HTTP where HTTPS was asked for.
    #[error("{0}")]
    HttpResponseToHttps(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Makes requests. Dropping a call ends it.
#[async_trait]
pub trait ProbeTransport: Send + Sync {
    /// Success from 200 to 299; redirects are followed on the same host, others are a warning. At the latest after
    /// `timeout` it is a failure.
    async fn http(&self, request: &HttpGet, timeout: Duration) -> ProbeOutcome;

    /// Success if the connection comes about within `timeout`.
    async fn tcp(&self, request: &TcpConnect, timeout: Duration) -> ProbeOutcome;

    /// Success if the service answers SERVING within `timeout`.
    async fn grpc(&self, request: &GrpcCheck, timeout: Duration) -> ProbeOutcome;

    /// The request of a lifecycle hook: any answer is success, and it may take as long as it takes.
    async fn http_hook(&self, request: &HttpGet) -> Result<(), HookError>;
}
