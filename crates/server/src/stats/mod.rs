//! `/stats/summary` (upstream: `pkg/kubelet/server/stats`).

mod api;
mod summary;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use coracle_core::stats::UsageScope;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use crate::routes::App;
use crate::text::text;
use api::Summary;

/// What node and pods use; `?only_cpu_and_memory=true` asks for less (`handleSummary`).
pub(crate) async fn get_summary(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let only: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "only_cpu_and_memory")
        .map(|(_, value)| value)
        .collect();
    let scope = if only == ["true"] { UsageScope::CpuAndMemory } else { UsageScope::Everything };
    match summarize(&app, scope).await {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Error: {error}")),
    }
}

/// A provider that cannot say anything hides its own pods, and no others.
async fn summarize(app: &App, scope: UsageScope) -> Result<Vec<u8>, String> {
    let node = app.about.node_usage.node_usage();
    let node = node.map_err(|error| format!("failed to get root cgroup stats: {error}"))?;
    let pods = app.host.pods_usage(scope).await;
    for (provider, error) in &pods.failed {
        tracing::warn!(provider, error, "pods cannot be measured");
    }
    let image_fs = match scope {
        UsageScope::CpuAndMemory => Vec::new(),
        UsageScope::Everything => app.host.image_fs_usage().await,
    };
    let summary = summary::summary(&app.about.node_name, scope, &node, &image_fs, &pods.pods);
    indented(&summary).map_err(|error| error.to_string())
}

/// As go-restful writes JSON: indented by one space.
fn indented(summary: &Summary) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut body, PrettyFormatter::with_indent(b" "));
    summary.serialize(&mut serializer)?;
    Ok(body)
}
