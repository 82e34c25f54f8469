//! Everything below `/metrics`, in Prometheus' text format.

mod cadvisor;
mod family;
mod http;
mod kubelet;
mod resource;
mod slis;

use std::sync::Arc;

use ::http::StatusCode;
use ::http::header::CONTENT_TYPE;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_core::machine::NodeUsage;
use coracle_core::metrics::PROBES;
use coracle_core::stats::UsageScope;
use jiff::Timestamp;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use tracing::warn;

use crate::routes::App;
use crate::text::text;

pub(crate) use http::{ServerType, count_requests};
pub(crate) use slis::observe_healthcheck;

/// The version of the format, as Prometheus asks for it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`: what the process has counted, and what it is.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let usage = node_usage(&app);
    let process = usage.as_ref().map(|usage| &usage.kubelet);
    let mut families = prometheus::gather();
    families.extend(kubelet::kubelet_metrics(&app.about, &app.host.counts(), process));
    families.extend(app.certificate.as_ref().and_then(|it| kubelet::certificate_ttl(it.expires_at())));
    families.extend(app.about.metrics.iter().flat_map(|source| source()));
    encoded(families)
}

/// `/metrics/resource`.
pub(crate) async fn resource(State(app): State<Arc<App>>) -> Response {
    let pods = app.host.pods_usage(UsageScope::CpuAndMemory).await;
    warn_of(&pods.failed);
    encoded(resource::resource_metrics(node_usage(&app).as_ref(), &pods))
}

/// `/metrics/cadvisor`.
pub(crate) async fn cadvisor(State(app): State<Arc<App>>) -> Response {
    let pods = app.host.pods_usage(UsageScope::Everything).await;
    warn_of(&pods.failed);
    encoded(cadvisor::cadvisor_metrics(&app.about.machine, node_usage(&app).as_ref(), &pods))
}

/// `/metrics/probes`: the results of probes, and when this process started.
pub(crate) async fn probes(State(app): State<Arc<App>>) -> Response {
    encoded(with_process_start(&app, PROBES.gather()))
}

/// `/metrics/slis`: the results of health checks.
pub(crate) async fn slis(State(app): State<Arc<App>>) -> Response {
    encoded(with_process_start(&app, slis::gather()))
}

fn with_process_start(app: &App, mut families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let start = node_usage(app).and_then(|usage| kubelet::process_start(&usage.kubelet).finish());
    families.extend(start);
    families
}

fn node_usage(app: &App) -> Option<NodeUsage> {
    app.about.node_usage.node_usage().inspect_err(|error| warn!(error, "the node cannot be measured")).ok()
}

fn warn_of(failed: &[(&str, String)]) {
    for (provider, error) in failed {
        warn!(provider, error, "pods cannot be measured");
    }
}

fn encoded(mut families: Vec<MetricFamily>) -> Response {
    families.sort_by(|a, b| a.name().cmp(b.name()));
    match TextEncoder::new().encode_to_string(&families) {
        Ok(body) => ([(CONTENT_TYPE, TEXT_FORMAT)], body).into_response(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn epoch_seconds(time: Timestamp) -> f64 {
    time.as_nanosecond() as f64 / 1e9
}
