//! What is served under which path.

mod container_logs;
mod healthz;
mod log_body;
mod log_query;
mod not_served;
mod pods;
mod sessions;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use coracle_core::host::HostInterface;
use coracle_streaming::Timeouts;
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
    sessions: Arc<Semaphore>,
    timeouts: Timeouts,
    shutdown: CancellationToken,
}

/// Everything that the kubelet's API serves (`InstallAuthNotRequiredHandlers`, `InstallAuthRequiredHandlers`).
pub(crate) fn kubelet(
    host: Arc<dyn HostInterface>,
    options: &ServerOptions,
    shutdown: CancellationToken,
) -> Router {
    let log_streams = Arc::new(Semaphore::new(options.limits.max_log_streams));
    let sessions = Arc::new(Semaphore::new(options.limits.max_sessions));
    let timeouts = Timeouts { idle: options.streaming_connection_idle_timeout, ..Timeouts::default() };
    let pods = get(pods::get_pods).fallback(method_not_allowed);
    let mut router = Router::new()
        .route("/healthz", any(healthz::healthz))
        .route("/healthz/{check}", any(healthz::one_check))
        .route("/pods", pods.clone())
        .route("/pods/", pods);
    if options.enable_debugging_handlers {
        let container_logs = get(container_logs::get_container_logs).fallback(method_not_allowed);
        router = with_sessions(router)
            .route("/containerLogs/{pod_namespace}/{pod_id}/{container_name}", container_logs)
            .fallback(not_served::not_served);
    } else {
        router = router.fallback(not_served::debugging_disabled);
    }
    router.with_state(Arc::new(App { host, log_streams, sessions, timeouts, shutdown }))
}

fn with_sessions(router: Router<Arc<App>>) -> Router<Arc<App>> {
    const POD: &str = "{pod_namespace}/{pod_id}";
    let container = |name: &str| {
        [format!("/{name}/{POD}/{{container_name}}"), format!("/{name}/{POD}/{{uid}}/{{container_name}}")]
    };
    let both = |handler: MethodRouter<Arc<App>>| handler.fallback(neither_get_nor_post);
    let exec = both(get(sessions::get_exec).post(sessions::get_exec));
    let attach = both(get(sessions::get_attach).post(sessions::get_attach));
    let port_forward = both(get(sessions::get_port_forward).post(sessions::get_port_forward));
    let run = post(sessions::get_run).fallback(not_post);
    let router = container("exec").iter().fold(router, |router, path| router.route(path, exec.clone()));
    let router = container("attach").iter().fold(router, |router, path| router.route(path, attach.clone()));
    let router = container("run").iter().fold(router, |router, path| router.route(path, run.clone()));
    router
        .route(&format!("/portForward/{POD}"), port_forward.clone())
        .route(&format!("/portForward/{POD}/{{uid}}"), port_forward)
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
    allow("GET")
}

async fn neither_get_nor_post() -> Response {
    allow("GET, POST")
}

async fn not_post() -> Response {
    allow("POST")
}

fn allow(methods: &'static str) -> Response {
    ([(ALLOW, methods)], text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")).into_response()
}
