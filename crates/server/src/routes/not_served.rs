//! Paths that upstream has and this kubelet does not, or not now.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use crate::auth::is_subpath;
use crate::text::text;

/// What upstream serves besides.
const NOT_SERVED: [&str; 11] = [
    "/allocatedPods",
    "/checkpoint",
    "/configz",
    "/debug/flags/v",
    "/debug/pprof",
    "/flagz",
    "/logs",
    "/metrics",
    "/runningpods",
    "/stats",
    "/statusz",
];

/// What `enableDebuggingHandlers: false` turns off (`InstallDebuggingDisabledHandlers`).
const DEBUGGING: [&str; 8] =
    ["/run", "/exec", "/attach", "/portForward", "/containerLogs", "/runningpods", "/debug/pprof", "/logs"];

pub(super) async fn not_served(request: Request) -> Response {
    let path = request.uri().path();
    match NOT_SERVED.iter().find(|prefix| is_subpath(path, prefix)) {
        Some(prefix) => {
            text(StatusCode::NOT_IMPLEMENTED, format!("{prefix} is not served by this kubelet\n"))
        }
        None => not_found().await,
    }
}

pub(super) async fn debugging_disabled(request: Request) -> Response {
    if DEBUGGING.iter().any(|prefix| is_subpath(request.uri().path(), prefix)) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
    }
    not_served(request).await
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
