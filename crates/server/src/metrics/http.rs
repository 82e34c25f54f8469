//! Requests, counted (upstream: `pkg/kubelet/server/metrics`).

use std::sync::LazyLock;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use coracle_core::metrics::{DEF_BUCKETS, counter_vec, gauge_vec, histogram_vec};
use prometheus::core::{AtomicF64, GenericGauge};
use prometheus::{CounterVec, GaugeVec, HistogramVec, default_registry};
use tokio::time::Instant;

const LABELS: &[&str] = &["long_running", "method", "path", "server_type"];

static REQUESTS: LazyLock<CounterVec> = LazyLock::new(|| {
    counter_vec(default_registry(), "kubelet_http_requests_total", "Requests received", LABELS)
});
static DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let name = "kubelet_http_requests_duration_seconds";
    histogram_vec(default_registry(), name, "How long requests took, in seconds", &DEF_BUCKETS, LABELS)
});
static IN_FLIGHT: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help = "Requests that are being served";
    gauge_vec(default_registry(), "kubelet_http_inflight_requests", help, LABELS)
});

/// First parts of paths that are counted by name. Anybody can ask for others, so they share one.
const BUCKETS: [&str; 20] = [
    "attach",
    "checkpoint",
    "configz",
    "containerLogs",
    "debug",
    "exec",
    "flagz",
    "healthz",
    "logs",
    "metrics",
    "metrics/cadvisor",
    "metrics/probes",
    "metrics/resource",
    "pods",
    "portForward",
    "pprof",
    "run",
    "runningpods",
    "stats",
    "statusz",
];
const METHODS: [&str; 8] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];
/// `longRunningRequestPathMap`, whose `portforward` matches no path.
const LONG_RUNNING: [&str; 3] = ["exec", "attach", "debug"];

/// Which server a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerType {
    ReadOnly,
    ReadWrite,
}

impl ServerType {
    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "readonly",
            Self::ReadWrite => "readwrite",
        }
    }
}

/// Counts a request and the time until its answer begins (`Server.ServeHTTP`).
pub(crate) async fn count_requests(
    State(server_type): State<ServerType>,
    request: Request,
    next: Next,
) -> Response {
    let path = path_bucket(request.uri().path());
    let long_running = if LONG_RUNNING.contains(&path) { "true" } else { "false" };
    let labels = [long_running, method_bucket(request.method().as_str()), path, server_type.name()];
    REQUESTS.with_label_values(&labels).inc();
    let _in_flight = InFlight::new(IN_FLIGHT.with_label_values(&labels));
    let started = Instant::now();
    let response = next.run(request).await;
    DURATION.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
    response
}

/// A request is in flight until this is dropped, also if its client goes away.
struct InFlight(GenericGauge<AtomicF64>);

impl InFlight {
    fn new(gauge: GenericGauge<AtomicF64>) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn method_bucket(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// The first part of a path, or the first two of `metrics/…` (`getURLRootPath`, `getMetricBucket`).
fn path_bucket(path: &str) -> &'static str {
    let path = path.trim_start_matches('/');
    let slashes = if path.starts_with("metrics/") { 1 } else { 0 };
    let end = path.match_indices('/').nth(slashes).map_or(path.len(), |(at, _)| at);
    BUCKETS.into_iter().find(|known| *known == &path[..end]).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's `TestGetMetricBucket`, and methods.
    #[test]
    fn what_anybody_can_make_up_is_counted_together() {
        for (path, bucket) in [
            ("/healthz", "healthz"),
            ("/healthz/", "healthz"),
            ("/healthz/whatever", "healthz"),
            ("/stats/summary", "stats"),
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics/cadvisor"),
            ("/metrics/cadvisor/", "metrics/cadvisor"),
            ("/metrics/invented", "other"),
            ("/exec/ns/pod/c", "exec"),
            ("/run/ns/pod/c", "run"),
            ("/invented", "other"),
            ("/", "other"),
        ] {
            assert_eq!(path_bucket(path), bucket, "{path}");
        }
        assert_eq!((method_bucket("GET"), method_bucket("PATCH")), ("GET", "other"));
    }
}
