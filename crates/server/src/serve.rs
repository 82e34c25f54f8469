//! Listening, and what happens to a connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use coracle_core::host::HostInterface;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::about::About;
use crate::auth::{KubeletAuth, require_auth};
use crate::limits::Limits;
use crate::metrics::{ServerType, count_requests};
use crate::peer::Peer;
use crate::routes;
use crate::slots::Slots;
use crate::tls::{TlsError, TlsOptions, TlsServer};

/// How long to wait after `accept` failed, which it does when descriptors run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How the kubelet's API is served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Whether logs, exec and the like are served (`enableDebuggingHandlers` in the configuration).
    pub enable_debugging_handlers: bool,
    /// How long a session may be idle; zero is for ever (`streamingConnectionIdleTimeout`).
    pub streaming_connection_idle_timeout: Duration,
    /// What clients may use up.
    pub limits: Limits,
    /// What is told of this kubelet besides its pods.
    pub about: About,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            enable_debugging_handlers: true,
            streaming_connection_idle_timeout: Duration::from_secs(4 * 60 * 60),
            limits: Limits::default(),
            about: About::default(),
        }
    }
}

/// Serves the HTTPS API until `shutdown` (`ListenAndServeKubeletServer`). Then nothing new is accepted, followed logs
/// end, and what is under way has a moment to finish. Dropping the future ends everything at once.
pub async fn listen_and_serve_kubelet_server(
    listener: TcpListener,
    tls: TlsOptions,
    auth: KubeletAuth,
    host: Arc<dyn HostInterface>,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<(), TlsError> {
    let tls = TlsServer::new(tls, auth.wants_client_certificates())?;
    // Sessions and followed logs end with the server, whether it is shut down or dropped.
    let end = shutdown.child_token();
    let _end_on_drop = end.clone().drop_guard();
    let routes = routes::kubelet(host, &options, Some(tls.certificate()), end);
    let routes = routes.layer(from_fn_with_state(Arc::new(auth), require_auth));
    let routes = routes.layer(from_fn_with_state(ServerType::ReadWrite, count_requests));
    Server { transport: Transport::Tls(tls), routes, limits: options.limits }.serve(listener, shutdown).await;
    Ok(())
}

/// Serves the read-only port until `shutdown` (`ListenAndServeKubeletReadOnlyServer`): plain HTTP, no authentication,
/// and only what upstream shows to everybody, whatever `options` say.
pub async fn listen_and_serve_kubelet_read_only_server(
    listener: TcpListener,
    host: Arc<dyn HostInterface>,
    options: ServerOptions,
    shutdown: CancellationToken,
) {
    let options = ServerOptions { enable_debugging_handlers: false, ..options };
    let routes = routes::kubelet(host, &options, None, shutdown.clone());
    let routes = routes.layer(from_fn_with_state(ServerType::ReadOnly, count_requests));
    Server { transport: Transport::Plain, routes, limits: options.limits }.serve(listener, shutdown).await;
}

/// Serves `/healthz` until `shutdown`, for whoever watches the process on its own machine: plain HTTP, and as upstream
/// only a sign that the process answers.
pub async fn listen_and_serve_healthz(listener: TcpListener, shutdown: CancellationToken) {
    let server =
        Server { transport: Transport::Plain, routes: routes::healthz_only(), limits: Limits::default() };
    server.serve(listener, shutdown).await;
}

struct Server {
    transport: Transport,
    routes: Router,
    limits: Limits,
}

enum Transport {
    Plain,
    Tls(TlsServer),
}

impl Server {
    async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let server = Arc::new(self);
        let slots = Slots::new(&server.limits);
        let connections = TaskTracker::new();
        let kill = CancellationToken::new();
        // Connections are tasks, and must not outlive this future.
        let _kill_on_drop = kill.clone().drop_guard();

        while let Some((stream, peer)) = accept(&listener, &shutdown).await {
            let Some(slot) = slots.take(peer.ip()) else {
                debug!(%peer, "refused a connection: there are too many");
                continue;
            };
            let (server, shutdown, kill) = (server.clone(), shutdown.clone(), kill.clone());
            connections.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = kill.cancelled() => {}
                    served = server.connection(stream, shutdown) => {
                        if let Err(error) = served {
                            debug!(%peer, %error, "a connection ended with an error");
                        }
                    }
                }
            });
        }

        connections.close();
        if timeout(server.limits.shutdown_grace, connections.wait()).await.is_err() {
            warn!(left = connections.len(), "connections did not end in time and are cut");
        }
    }

    async fn connection(
        &self,
        stream: TcpStream,
        shutdown: CancellationToken,
    ) -> Result<(), ConnectionError> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
        sockopt::set_tcp_keepidle(&stream, self.limits.keep_alive_interval).map_err(io::Error::from)?;
        sockopt::set_tcp_keepintvl(&stream, self.limits.keep_alive_interval).map_err(io::Error::from)?;
        match &self.transport {
            Transport::Plain => {
                let peer = Peer::default();
                // Nobody has to prove anything here.
                peer.mark_allowed();
                self.http(stream, peer, false, shutdown).await
            }
            Transport::Tls(tls) => {
                let handshake = timeout(self.limits.tls_handshake_timeout, tls.accept(stream)).await;
                let stream = handshake.map_err(|_| ConnectionError::HandshakeTimeout)??;
                let session = stream.get_ref().1;
                let peer = Peer::new(session.peer_certificates());
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                self.http(stream, peer, is_http2, shutdown).await
            }
        }
    }

    /// Serves requests until the client leaves, has to leave, or the shutdown lets it go.
    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        is_http2: bool,
        shutdown: CancellationToken,
    ) -> Result<(), ConnectionError> {
        let service = service_fn(|mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            self.routes.clone().oneshot(request)
        });
        let builder = self.http_builder(is_http2);
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut unauthorized = pin!(sleep(self.limits.unauthorized_connection_timeout));
        let (mut on_trial, mut stopping) = (true, false);
        loop {
            tokio::select! {
                served = connection.as_mut() => return served.map_err(ConnectionError::Http),
                () = shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = unauthorized.as_mut(), if on_trial => {
                    on_trial = false;
                    if !peer.has_been_allowed() {
                        return Err(ConnectionError::Unauthorized);
                    }
                }
            }
        }
    }

    /// The protocol is settled in the TLS handshake, so that no connection waits for a first byte to tell it.
    fn http_builder(&self, is_http2: bool) -> auto::Builder<TokioExecutor> {
        let builder = auto::Builder::new(TokioExecutor::new());
        let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_read_timeout)
            .max_buf_size(self.limits.max_header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(self.limits.max_concurrent_streams)
            .keep_alive_interval(self.limits.keep_alive_interval)
            .keep_alive_timeout(self.limits.keep_alive_interval);
        builder
    }
}

/// The next connection; none once the shutdown has begun.
async fn accept(
    listener: &TcpListener,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, std::net::SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => return Some(connection),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("no request was allowed for too long")]
    Unauthorized,
    #[error(transparent)]
    Http(Box<dyn std::error::Error + Send + Sync>),
}
