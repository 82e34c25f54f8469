//! What is served under which path.

mod container_logs;
mod healthz;
mod log_body;
mod log_query;
mod not_served;
mod pods;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use coracle_core::host::HostInterface;
use http::StatusCode;
use http::header::ALLOW;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::ServerOptions;
use crate::text::text;

/// What handlers share.
struct App {
    host: Arc<dyn HostInterface>,
    log_streams: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Everything that the kubelet's API serves (`InstallAuthNotRequiredHandlers`, `InstallAuthRequiredHandlers`).
pub(crate) fn kubelet(
    host: Arc<dyn HostInterface>,
    options: &ServerOptions,
    shutdown: CancellationToken,
) -> Router {
    let log_streams = Arc::new(Semaphore::new(options.limits.max_log_streams));
    let pods = get(pods::get_pods).fallback(method_not_allowed);
    let mut router = Router::new()
        .route("/healthz", any(healthz::healthz))
        .route("/healthz/{check}", any(healthz::one_check))
        .route("/pods", pods.clone())
        .route("/pods/", pods);
    if options.enable_debugging_handlers {
        let container_logs = get(container_logs::get_container_logs).fallback(method_not_allowed);
        router = router
            .route("/containerLogs/{pod_namespace}/{pod_id}/{container_name}", container_logs)
            .fallback(not_served::not_served);
    } else {
        router = router.fallback(not_served::debugging_disabled);
    }
    router.with_state(Arc::new(App { host, log_streams, shutdown }))
}

/// What the local health port serves.
pub(crate) fn healthz_only() -> Router {
    Router::new()
        .route("/healthz", any(healthz::ping))
        .route("/healthz/ping", any(healthz::ping))
        .fallback(not_served::not_found)
}

/// The answer to anything but GET (`GETOnlyRestfulFilter`).
async fn method_not_allowed() -> Response {
    ([(ALLOW, "GET")], text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")).into_response()
}
