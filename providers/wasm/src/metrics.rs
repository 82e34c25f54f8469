//! What the provider counts, in a registry of its own: another one in the same process counts for itself.

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds that compiling takes: from a small module to what the limit ends.
const COMPILE_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds that making an instance takes.
const INSTANTIATE_BUCKETS: [f64; 8] = [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.1];

/// The counters, all under `coracle_wasm_`.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    instances: IntGauge,
    traps: IntCounter,
    compile_duration: Histogram,
    compile_failures: IntCounter,
    instantiate_duration: Histogram,
    code_cache_requests: IntCounterVec,
}

/// An instance, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedInstance(IntGauge);

impl Drop for CountedInstance {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, Histogram::with_opts(options)?)
        };
        let requests = Opts::new(
            "coracle_wasm_code_cache_requests_total",
            "Programs that were asked for, by whether their native code was there",
        );
        Ok(Self {
            instances: registered(
                &registry,
                IntGauge::new(
                    "coracle_wasm_instances",
                    "Instances of WebAssembly programs that there are now",
                )?,
            )?,
            traps: registered(
                &registry,
                IntCounter::new("coracle_wasm_traps_total", "Instances that a trap ended")?,
            )?,
            compile_duration: histogram(
                "coracle_wasm_compile_duration_seconds",
                "How long compiling programs took, in seconds",
                &COMPILE_BUCKETS,
            )?,
            compile_failures: registered(
                &registry,
                IntCounter::new(
                    "coracle_wasm_compile_failures_total",
                    "Programs that could not be compiled",
                )?,
            )?,
            instantiate_duration: histogram(
                "coracle_wasm_instantiate_duration_seconds",
                "How long making instances took, in seconds",
                &INSTANTIATE_BUCKETS,
            )?,
            code_cache_requests: registered(&registry, IntCounterVec::new(requests, &["result"])?)?,
            registry,
        })
    }

    /// What was counted so far.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// There is one more instance.
    pub(crate) fn instance(&self) -> CountedInstance {
        self.instances.inc();
        CountedInstance(self.instances.clone())
    }

    /// Times the making of an instance.
    pub(crate) async fn instantiating<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let made = work.await;
        self.instantiate_duration.observe(started.elapsed().as_secs_f64());
        made
    }

    /// A trap ended an instance.
    pub(crate) fn trapped(&self) {
        self.traps.inc();
    }

    /// Native code was asked for.
    pub(crate) fn code_requested(&self, is_there: bool) {
        self.code_cache_requests.with_label_values(&[if is_there { "hit" } else { "miss" }]).inc();
    }

    /// A compilation has ended.
    pub(crate) fn compiled(&self, took: Duration, is_good: bool) {
        self.compile_duration.observe(took.as_secs_f64());
        if !is_good {
            self.compile_failures.inc();
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_counted_under_one_name() {
        let metrics = Metrics::new().unwrap();
        let instance = metrics.instance();
        metrics.trapped();
        metrics.code_requested(true);
        metrics.code_requested(false);
        metrics.compiled(Duration::from_millis(60), false);
        metrics.instantiating(async {}).await;
        let text = prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
        for line in [
            "coracle_wasm_instances 1",
            "coracle_wasm_traps_total 1",
            "coracle_wasm_code_cache_requests_total{result=\"hit\"} 1",
            "coracle_wasm_compile_failures_total 1",
            "coracle_wasm_compile_duration_seconds_bucket{le=\"0.1\"} 1",
            "coracle_wasm_instantiate_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|other| other == line), "there is no {line} in\n{text}");
        }
        drop(instance);
        assert_eq!(metrics.instances.get(), 0);
    }
}
