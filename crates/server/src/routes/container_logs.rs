//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;

use super::App;
use super::log_body::LogBody;
use super::log_query::{LogQuery, LogQueryError};
use crate::text::text;

/// A container's log (`getContainerLogs`). Status codes and texts are upstream's: kubectl shows them.
pub(super) async fn get_container_logs(
    State(app): State<Arc<App>>,
    Path((namespace, pod_name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = match LogQuery::parse(query.as_deref().unwrap_or_default(), Timestamp::now()) {
        Ok(query) => query,
        Err(LogQueryError::Undecodable) => {
            return text(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#);
        }
        Err(LogQueryError::Invalid) => {
            return text(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#);
        }
    };
    let Some(pod) = app.host.pod_by_name(&namespace, &pod_name) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod_name:?} does not exist"));
    };
    if !pod.spec.as_ref().is_some_and(|spec| has_container(spec, &container)) {
        let message = format!("container {container:?} not found in pod {pod_name:?}");
        return text(StatusCode::NOT_FOUND, message);
    }
    let log = match app.host.container_log(&namespace, &pod_name, &container, query.previous).await {
        Ok(log) => log,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let Ok(permit) = app.log_streams.clone().try_acquire_owned() else {
        let message = "too many logs are being read on this node, try again later";
        return ([(RETRY_AFTER, "1")], text(StatusCode::TOO_MANY_REQUESTS, message)).into_response();
    };
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let body = LogBody::new(log, query.options, app.log_watches.clone(), app.shutdown.clone(), permit);
    (headers, Body::new(body)).into_response()
}

/// `GetContainerSpec` finds one.
pub(super) fn has_container(spec: &PodSpec, name: &str) -> bool {
    let init = spec.init_containers.iter().flatten().map(|container| &container.name);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
    let mut names = spec.containers.iter().map(|container| &container.name).chain(init).chain(ephemeral);
    names.any(|other| other == name)
}
