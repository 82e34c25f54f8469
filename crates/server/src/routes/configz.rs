//! `/configz` (upstream: component-base's `configz`).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::json;

use super::App;

/// The configuration in force, under the name that upstream's kubelet registers it with.
pub(super) async fn get_configz(State(app): State<Arc<App>>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, json!({"kubeletconfig": app.about.configuration}).to_string()).into_response()
}
