//! Paths that upstream has and this kubelet does not, or not now.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use crate::auth::is_subpath;
use crate::text::text;

/// What upstream serves besides: profiles of a Go program.
const NOT_SERVED: &str = "/debug/pprof";

/// What `enableDebuggingHandlers: false` turns off (`InstallDebuggingDisabledHandlers`).
const DEBUGGING: [&str; 8] =
    ["/run", "/exec", "/attach", "/portForward", "/containerLogs", "/runningpods", "/debug/pprof", "/logs"];

pub(super) async fn not_served(request: Request) -> Response {
    if is_subpath(request.uri().path(), NOT_SERVED) {
        let message = format!("{NOT_SERVED} is not served by this kubelet\n");
        return text(StatusCode::NOT_IMPLEMENTED, message);
    }
    not_found().await
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
