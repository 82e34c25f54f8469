//! `/checkpoint/{namespace}/{pod}/{container}`.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;

use super::App;
use super::container_logs::has_container;
use crate::text::text;

/// Says what is wrong with a request in upstream's order, and that no runtime here can do it (`checkpoint`).
pub(super) async fn checkpoint(
    State(app): State<Arc<App>>,
    Path((namespace, pod_name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(pod) = app.host.pod_by_name(&namespace, &pod_name) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if !pod.spec.as_ref().is_some_and(|spec| has_container(spec, &container)) {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    let query = query.unwrap_or_default();
    let timeout = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "timeout").last();
    if timeout.is_some_and(|(_, value)| value.parse::<i64>().is_err()) {
        return text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter");
    }
    let why = "the container's runtime cannot checkpoint";
    let message = format!("checkpointing of {namespace}/{pod_name}/{container} failed ({why})");
    text(StatusCode::INTERNAL_SERVER_ERROR, message)
}
