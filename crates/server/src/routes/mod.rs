//! What is served under which path.

mod checkpoint;
mod configz;
mod container_logs;
mod debug_flags;
mod healthz;
mod log_body;
mod log_query;
mod not_served;
mod pods;
mod running_pods;
mod sessions;
mod system_logs;
mod zpages;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use coracle_core::host::HostInterface;
use coracle_core::logs::LogWatches;
use coracle_streaming::Timeouts;
use http::StatusCode;
use http::header::ALLOW;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::ServerOptions;
use crate::about::About;
use crate::metrics;
use crate::stats;
use crate::text::text;
use crate::tls::ServingCertificate;

/// The first parts of what is served, in order: `/statusz` names them.
const PATHS: [&str; 16] = [
    "/attach",
    "/checkpoint",
    "/configz",
    "/containerLogs",
    "/debug",
    "/exec",
    "/flagz",
    "/healthz",
    "/logs",
    "/metrics",
    "/pods",
    "/portForward",
    "/run",
    "/runningpods",
    "/stats",
    "/statusz",
];

/// What handlers share.
pub(crate) struct App {
    pub(crate) host: Arc<dyn HostInterface>,
    pub(crate) about: About,
    /// What this server shows clients; none without TLS.
    pub(crate) certificate: Option<Arc<ServingCertificate>>,
    log_streams: Arc<Semaphore>,
    log_watches: Arc<LogWatches>,
    sessions: Arc<Semaphore>,
    timeouts: Timeouts,
    shutdown: CancellationToken,
}

/// Everything that the kubelet's API serves (`InstallAuthNotRequiredHandlers`, `InstallAuthRequiredHandlers`).
pub(crate) fn kubelet(
    host: Arc<dyn HostInterface>,
    options: &ServerOptions,
    certificate: Option<Arc<ServingCertificate>>,
    shutdown: CancellationToken,
) -> Router {
    let mut router = for_everybody();
    if options.enable_debugging_handlers {
        router = for_debugging(router).fallback(not_served::not_found);
    } else {
        router = router.fallback(not_served::debugging_disabled);
    }
    let app = App {
        host,
        about: options.about.clone(),
        certificate,
        log_streams: Arc::new(Semaphore::new(options.limits.max_log_streams)),
        log_watches: Arc::default(),
        sessions: Arc::new(Semaphore::new(options.limits.max_sessions)),
        timeouts: Timeouts { idle: options.streaming_connection_idle_timeout, ..Timeouts::default() },
        shutdown,
    };
    router.with_state(Arc::new(app))
}

/// What the read-only port serves as well.
fn for_everybody() -> Router<Arc<App>> {
    let pods = only_get(get(pods::get_pods));
    let summary = get(stats::get_summary).post(stats::get_summary).fallback(neither_get_nor_post);
    Router::new()
        .route("/healthz", any(healthz::healthz))
        .route("/healthz/{check}", any(healthz::one_check))
        .route("/pods", pods.clone())
        .route("/pods/", pods)
        .route("/stats/summary", summary.clone())
        .route("/stats/summary/", summary)
        .route("/metrics", any(metrics::metrics))
        .route("/metrics/cadvisor", any(metrics::cadvisor))
        .route("/metrics/resource", any(metrics::resource))
        .route("/metrics/probes", any(metrics::probes))
        .route("/metrics/slis", any(metrics::slis))
}

/// What `enableDebuggingHandlers` turns on.
fn for_debugging(router: Router<Arc<App>>) -> Router<Arc<App>> {
    let running_pods = only_get(get(running_pods::get_running_pods));
    with_sessions(router)
        .route(
            "/containerLogs/{pod_namespace}/{pod_id}/{container_name}",
            only_get(get(container_logs::get_container_logs)),
        )
        .route("/configz", any(configz::get_configz))
        .route("/runningpods", running_pods.clone())
        .route("/runningpods/", running_pods)
        .route(
            "/checkpoint/{pod_namespace}/{pod_id}/{container_name}",
            post(checkpoint::checkpoint).fallback(not_post),
        )
        .route("/logs", only_get(get(system_logs::to_folder)))
        .route("/logs/", only_get(get(system_logs::get_logs)))
        .route("/logs/{*path}", only_get(get(system_logs::get_logs)))
        .route("/debug/pprof", any(not_served::profiles))
        .route("/debug/pprof/", any(not_served::profiles))
        .route("/debug/pprof/{*profile}", any(not_served::profiles))
        .route("/debug/flags/v", any(debug_flags::put_verbosity))
        .route("/flagz", any(zpages::flagz))
        .route("/statusz", any(zpages::statusz))
}

fn only_get(handler: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    handler.fallback(method_not_allowed)
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
