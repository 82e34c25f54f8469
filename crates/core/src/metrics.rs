//! What the kubelet counts, under upstream's names (`pkg/kubelet/metrics/metrics.go`, `prober/prober_manager.go`).
//!
//! As upstream these belong to the process and not to a kubelet in it: there is one registry for `/metrics`, Prometheus'
//! default one, and [`PROBES`] for `/metrics/probes`. What can be told from the present state is not counted here.

pub mod pod_resources;

use std::sync::LazyLock;

use coracle_provider::Result;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    core::Collector, default_registry, exponential_buckets,
};
use tokio::time::Instant;

/// Bounds in seconds for what should be quick (`DefBuckets`).
pub const DEF_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// `podStartupDurationBuckets`.
const POD_STARTUP_BUCKETS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// `imagePullDurationBuckets`.
const IMAGE_PULL_BUCKETS: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
    2700.0, 3600.0,
];
const STATUS_SYNC_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// How long a worker took, by what it did: `create`, `update`, `sync`, `kill`, `terminated`.
pub static POD_WORKER_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let name = "kubelet_pod_worker_duration_seconds";
    kubelet_histogram_vec(name, "How long syncs of a pod took, in seconds", &DEF_BUCKETS, &["operation_type"])
});
/// From a pod's first sight to the first sync of its worker.
pub static POD_WORKER_START_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From a pod's first sight to its worker, in seconds";
    histogram("kubelet_pod_worker_start_duration_seconds", help, &DEF_BUCKETS)
});
/// Main containers of pods that were seen for the first time.
pub static CONTAINERS_PER_POD_COUNT: LazyLock<Histogram> = LazyLock::new(|| {
    histogram("kubelet_containers_per_pod_count", "Containers of a pod", &[1.0, 2.0, 4.0, 8.0, 16.0])
});
/// From a pod's first sight to its running.
pub static POD_START_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From a pod's first sight to its running, in seconds";
    histogram("kubelet_pod_start_duration_seconds", help, &POD_STARTUP_BUCKETS)
});
/// From a pod's creation to the moment the apiserver shows it running, without image pulls and init containers.
pub static POD_START_SLI_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From a pod's creation to its running as the apiserver shows it, without pulls and init containers, in \
                seconds";
    histogram("kubelet_pod_start_sli_duration_seconds", help, &POD_STARTUP_BUCKETS)
});
/// The same with everything.
pub static POD_START_TOTAL_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From a pod's creation to its running as the apiserver shows it, in seconds";
    histogram("kubelet_pod_start_total_duration_seconds", help, &POD_STARTUP_BUCKETS)
});
/// From a change of a pod's status to the apiserver's answer.
pub static POD_STATUS_SYNC_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From a change of a pod's status to the apiserver's answer, in seconds";
    histogram("kubelet_pod_status_sync_duration_seconds", help, &STATUS_SYNC_BUCKETS)
});
/// How long listing a runtime took.
pub static PLEG_RELIST_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "kubelet_pleg_relist_duration_seconds",
        "How long lists of a runtime took, in seconds",
        &DEF_BUCKETS,
    )
});
/// The time between two lists.
pub static PLEG_RELIST_INTERVAL: LazyLock<Histogram> = LazyLock::new(|| {
    histogram("kubelet_pleg_relist_interval_seconds", "The time between two lists, in seconds", &DEF_BUCKETS)
});
/// When a runtime was last listed.
pub static PLEG_LAST_SEEN: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help = "When a runtime was last listed, in seconds since 1970";
    gauge_vec(default_registry(), "kubelet_pleg_last_seen_seconds", help, &[])
});
/// Sandboxes that were to be made.
pub static STARTED_PODS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("kubelet_started_pods_total", "Sandboxes that were to be made"));
/// Those that could not.
pub static STARTED_PODS_ERRORS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("kubelet_started_pods_errors_total", "Sandboxes that could not be made"));
/// Containers that were to be started, by their kind.
pub static STARTED_CONTAINERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Containers that were to be started";
    int_counter_vec("kubelet_started_containers_total", help, &["container_type"])
});
/// Those that could not, and why.
pub static STARTED_CONTAINERS_ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Containers that could not be started";
    int_counter_vec("kubelet_started_containers_errors_total", help, &["code", "container_type"])
});
/// How long images took to come, by their size.
pub static IMAGE_PULL_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let (name, help) = ("kubelet_image_pull_duration_seconds", "How long pulls of images took, in seconds");
    kubelet_histogram_vec(name, help, &IMAGE_PULL_BUCKETS, &["image_size_in_bytes"])
});
/// Pods that had to go for a critical one.
pub static PREEMPTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Pods that were stopped for a critical one, by what was missing";
    int_counter_vec("kubelet_preemptions", help, &["preemption_signal"])
});

/// Pods that had to go because something ran out, or they took too much of it.
pub static EVICTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Pods that were evicted, by what ran out";
    int_counter_vec("kubelet_evictions", help, &["eviction_signal"])
});

/// Requests to the apiserver, by the code of the answer.
pub static REST_CLIENT_REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Requests to the apiserver";
    int_counter_vec("rest_client_requests_total", help, &["code", "host", "method"])
});

static RUNTIME_OPERATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec("kubelet_runtime_operations_total", "Calls of runtimes", &["operation_type"])
});
static RUNTIME_OPERATIONS_ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Calls of runtimes that failed";
    int_counter_vec("kubelet_runtime_operations_errors_total", help, &["operation_type"])
});
static RUNTIME_OPERATIONS_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let name = "kubelet_runtime_operations_duration_seconds";
    let help = "How long calls of runtimes took, in seconds";
    let buckets = exponential_buckets(0.005, 2.5, 14).expect("the bounds grow");
    kubelet_histogram_vec(name, help, &buckets, &["operation_type"])
});

/// What `/metrics/probes` shows.
pub static PROBES: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Results of probes.
pub static PROBER_RESULTS: LazyLock<CounterVec> = LazyLock::new(|| {
    let labels = &["container", "namespace", "pod", "pod_uid", "probe_type", "result"];
    counter_vec(&PROBES, "prober_probe_total", "Results of probes", labels)
});
/// How long probes took.
pub static PROBER_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let labels = &["container", "namespace", "pod", "probe_type"];
    let (name, help) = ("prober_probe_duration_seconds", "How long probes took, in seconds");
    histogram_vec(&PROBES, name, help, &DEF_BUCKETS, labels)
});

/// Makes what has no labels visible before it is first counted (`Register`).
pub fn register() {
    let histograms = [
        &POD_WORKER_START_DURATION,
        &CONTAINERS_PER_POD_COUNT,
        &POD_START_DURATION,
        &POD_START_SLI_DURATION,
        &POD_START_TOTAL_DURATION,
        &POD_STATUS_SYNC_DURATION,
        &PLEG_RELIST_DURATION,
        &PLEG_RELIST_INTERVAL,
    ];
    for histogram in histograms {
        LazyLock::force(histogram);
    }
    LazyLock::force(&STARTED_PODS);
    LazyLock::force(&STARTED_PODS_ERRORS);
}

/// Counts a call of a runtime (`kuberuntime/instrumented_services.go`).
pub async fn runtime_operation<T>(name: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    RUNTIME_OPERATIONS.with_label_values(&[name]).inc();
    let result = call.await;
    RUNTIME_OPERATIONS_DURATION.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
    if result.is_err() {
        RUNTIME_OPERATIONS_ERRORS.with_label_values(&[name]).inc();
    }
    result
}

/// The label for an image's size in bytes (`GetImageSizeBucket`).
pub fn image_size_bucket(bytes: u64) -> &'static str {
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    const BUCKETS: [(u64, &str); 12] = [
        (100 * GB, "GT100GB"),
        (60 * GB, "60GB-100GB"),
        (40 * GB, "40GB-60GB"),
        (30 * GB, "30GB-40GB"),
        (20 * GB, "20GB-30GB"),
        (10 * GB, "10GB-20GB"),
        (5 * GB, "5GB-10GB"),
        (GB, "1GB-5GB"),
        (500 * MB, "500MB-1GB"),
        (100 * MB, "100MB-500MB"),
        (10 * MB, "10MB-100MB"),
        (0, "0-10MB"),
    ];
    match bytes {
        0 => "N/A",
        _ => BUCKETS.iter().find(|(from, _)| bytes > *from).map_or("N/A", |(_, label)| label),
    }
}

/// A counter with labels in a registry. Names are constants, so what is wrong with one shows in the first test.
pub fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    registered(registry, CounterVec::new(Opts::new(name, help), labels))
}

/// A gauge with labels in a registry.
pub fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(registry, GaugeVec::new(Opts::new(name, help), labels))
}

/// A histogram with labels in a registry.
pub fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, labels))
}

fn kubelet_histogram_vec(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    histogram_vec(default_registry(), name, help, buckets, labels)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(default_registry(), Histogram::with_opts(options))
}

fn counter(name: &str, help: &str) -> IntCounter {
    registered(default_registry(), IntCounter::new(name, help))
}

fn int_counter_vec(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(default_registry(), IntCounterVec::new(Opts::new(name, help), labels))
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are well formed");
    registry.register(Box::new(metric.clone())).expect("a metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_of_runtimes_are_counted_with_their_failures() {
        let failed: Result<()> = Err(coracle_provider::Error::internal("as a test"));
        assert!(runtime_operation("test_call", async { failed }).await.is_err());
        assert_eq!(runtime_operation("test_call", async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(RUNTIME_OPERATIONS.with_label_values(&["test_call"]).get(), 2);
        assert_eq!(RUNTIME_OPERATIONS_ERRORS.with_label_values(&["test_call"]).get(), 1);
        assert_eq!(RUNTIME_OPERATIONS_DURATION.with_label_values(&["test_call"]).get_sample_count(), 2);
    }

    /// Upstream's `TestImageSizeBucket`, in short.
    #[test]
    fn sizes_of_images_have_upstreams_labels() {
        for (bytes, label) in [
            (0, "N/A"),
            (1, "0-10MB"),
            (10 << 20, "0-10MB"),
            ((10 << 20) + 1, "10MB-100MB"),
            (2 << 30, "1GB-5GB"),
            (200 << 30, "GT100GB"),
        ] {
            assert_eq!(image_size_bucket(bytes), label, "{bytes}");
        }
    }
}
