//! Paths that upstream has and this kubelet does not, or not now.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use super::App;
use crate::auth::is_subpath;
use crate::text::text;

/// What `enableDebuggingHandlers: false` turns off (`InstallDebuggingDisabledHandlers`).
const DEBUGGING: [&str; 8] =
    ["/run", "/exec", "/attach", "/portForward", "/containerLogs", "/runningpods", "/debug/pprof", "/logs"];

/// `/debug/pprof/`: profiles of a Go program, which this is not (`InstallProfilingHandler`).
pub(super) async fn profiles(State(app): State<Arc<App>>) -> Response {
    if app.about.profiling_is_off {
        return disabled("profiling endpoint is disabled.");
    }
    text(StatusCode::NOT_IMPLEMENTED, "/debug/pprof is not served by this kubelet\n")
}

/// The answer of an endpoint that the configuration turns off (`getHandlerForDisabledEndpoint`).
pub(super) fn disabled(message: &str) -> Response {
    text(StatusCode::METHOD_NOT_ALLOWED, format!("{message}\n"))
}

pub(super) async fn debugging_disabled(request: Request) -> Response {
    if DEBUGGING.iter().any(|prefix| is_subpath(request.uri().path(), prefix)) {
        return disabled("Debug endpoints are disabled.");
    }
    not_found().await
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
