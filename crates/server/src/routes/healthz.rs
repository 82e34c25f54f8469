//! Health checks (upstream: `k8s.io/apiserver/pkg/server/healthz`).

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use coracle_core::host::HostInterface;
use http::StatusCode;
use tracing::warn;

use super::App;
use super::not_served::not_found;
use crate::metrics::observe_healthcheck;
use crate::text::text;

/// The checks, in the order in which they are shown.
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

/// What a check finds wrong; none if there is no such check.
fn check(host: &dyn HostInterface, name: &str) -> Option<Result<(), String>> {
    match name {
        // Lines of the log are written as they come; upstream asks whether they still are.
        "ping" | "log" => Some(Ok(())),
        "syncloop" => Some(host.sync_loop_health_check().map_err(|error| error.to_string())),
        _ => None,
    }
}

/// `/healthz`: all checks, but those that `?exclude=` names; `?verbose` shows them (`handleRootHealth`).
pub(super) async fn healthz(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query: Vec<_> = form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()).collect();
    let mut excluded: Vec<&str> =
        query.iter().filter(|(name, _)| name == "exclude").map(|(_, check)| check.as_ref()).collect();
    let (mut report, mut failed) = (String::new(), false);
    for name in CHECKS {
        // Writing into a String cannot fail.
        let _ = if excluded.contains(&name) {
            excluded.retain(|other| *other != name);
            writeln!(report, "[+]{name} excluded: ok")
        } else if let Some(Err(error)) = check(&*app.host, name) {
            warn!(check = name, error, "health check failed");
            failed = true;
            observe_healthcheck(name, false);
            // Details are for those who may ask for the single check.
            writeln!(report, "[-]{name} failed: reason withheld")
        } else {
            observe_healthcheck(name, true);
            writeln!(report, "[+]{name} ok")
        };
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let quoted: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let _ = writeln!(
            report,
            "warn: some health checks cannot be excluded: no matches for {}",
            quoted.join(",")
        );
    }
    if failed {
        return text(StatusCode::INTERNAL_SERVER_ERROR, report + "healthz check failed\n");
    }
    if query.iter().any(|(name, _)| name == "verbose") {
        return text(StatusCode::OK, report + "healthz check passed\n");
    }
    text(StatusCode::OK, "ok")
}

/// `/healthz/{check}`: one check, with what is wrong (`adaptCheckToHandler`).
pub(super) async fn one_check(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match check(&*app.host, &name) {
        Some(Ok(())) => ping().await,
        Some(Err(error)) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {error}\n"))
        }
        None => not_found().await,
    }
}

/// The process answers.
pub(super) async fn ping() -> Response {
    text(StatusCode::OK, "ok")
}
