//! Results of health checks (upstream: component-base's `metrics/prometheus/slis`).

use std::sync::LazyLock;

use coracle_core::metrics::{counter_vec, gauge_vec};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Registry};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

static HEALTHCHECK: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help = "The last result of a health check: 1 if it was good";
    gauge_vec(&REGISTRY, "kubernetes_healthcheck", help, &["name", "type"])
});

static HEALTHCHECKS: LazyLock<CounterVec> = LazyLock::new(|| {
    let help = "Results of health checks";
    counter_vec(&REGISTRY, "kubernetes_healthchecks_total", help, &["name", "status", "type"])
});

/// Remembers how a health check went (`ObserveHealthcheck`).
pub(crate) fn observe_healthcheck(name: &str, is_good: bool) {
    HEALTHCHECK.with_label_values(&[name, "healthz"]).set(f64::from(u8::from(is_good)));
    let status = if is_good { "success" } else { "error" };
    HEALTHCHECKS.with_label_values(&[name, status, "healthz"]).inc();
}

pub(super) fn gather() -> Vec<MetricFamily> {
    REGISTRY.gather()
}
