//! `/metrics/resource`: what metrics-server reads (upstream: `pkg/kubelet/metrics/collectors/resource_metrics.go`).

use coracle_core::machine::NodeUsage;
use coracle_core::stats::{ContainerUsage, PodUsage, PodsUsage};
use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use super::family::Family;
use super::{epoch_seconds, seconds};

const CONTAINER: &[&str] = &["container", "namespace", "pod"];
const POD: &[&str] = &["namespace", "pod"];

/// The metrics; without a node's if its usage is not known.
pub(super) fn resource_metrics(node: Option<&NodeUsage>, pods: &PodsUsage) -> Vec<MetricFamily> {
    let failed = node.is_none() || !pods.failed.is_empty();
    let mut metrics = Vec::new();
    if let Some(node) = node {
        node_metrics(node, &mut metrics);
    }
    container_metrics(&pods.pods, &mut metrics);
    pod_metrics(&pods.pods, &mut metrics);
    let error = "1 if something could not be measured, 0 otherwise";
    for name in ["resource_scrape_error", "scrape_error"] {
        metrics.push(Family::gauge(name, error, &[]).with(&[], f64::from(u8::from(failed))));
    }
    metrics.into_iter().filter_map(Family::finish).collect()
}

fn node_metrics(node: &NodeUsage, metrics: &mut Vec<Family>) {
    let at = Some(node.timestamp.as_millisecond());
    let mut cpu =
        Family::counter("node_cpu_usage_seconds_total", "Processor time of the node, in seconds", &[]);
    cpu.add(&[], seconds(node.cpu_usage_core_nanos), at);
    let mut memory = Family::gauge("node_memory_working_set_bytes", "Working set of the node, in bytes", &[]);
    memory.add(&[], node.memory.working_set_bytes as f64, at);
    let mut swap = Family::gauge("node_swap_usage_bytes", "Swap that the node uses, in bytes", &[]);
    if let Some((_, used)) = node.swap {
        swap.add(&[], used as f64, at);
    }
    metrics.extend([cpu, memory, swap]);
}

fn container_metrics(pods: &[PodUsage], metrics: &mut Vec<Family>) {
    let mut started = Family::gauge(
        "container_start_time_seconds",
        "When the container started, in seconds since 1970",
        CONTAINER,
    );
    let mut cpu = Family::counter(
        "container_cpu_usage_seconds_total",
        "Processor time of the container, in seconds",
        CONTAINER,
    );
    let mut memory = Family::gauge(
        "container_memory_working_set_bytes",
        "Working set of the container, in bytes",
        CONTAINER,
    );
    for pod in pods {
        for ContainerUsage { status, stats, .. } in &pod.containers {
            let labels = [status.name.as_str(), &pod.pod.namespace, &pod.pod.name];
            let at = Some(stats.timestamp.as_millisecond());
            if let Some(start) = status.started_at {
                started.add(&labels, epoch_seconds(start), None);
            }
            cpu.add(&labels, seconds(stats.cpu_usage_core_nanos), at);
            memory.add(&labels, stats.memory.working_set_bytes as f64, at);
        }
    }
    metrics.extend([started, cpu, memory]);
}

/// A pod's are the sums of its containers', as old as the oldest of them.
fn pod_metrics(pods: &[PodUsage], metrics: &mut Vec<Family>) {
    let mut cpu =
        Family::counter("pod_cpu_usage_seconds_total", "Processor time of the pod, in seconds", POD);
    let mut memory = Family::gauge("pod_memory_working_set_bytes", "Working set of the pod, in bytes", POD);
    for pod in pods {
        let labels = [pod.pod.namespace.as_str(), &pod.pod.name];
        let stats = || pod.containers.iter().map(|container| &container.stats);
        let at = stats().map(|stats| stats.timestamp).min().map(Timestamp::as_millisecond);
        cpu.add(&labels, seconds(stats().map(|stats| stats.cpu_usage_core_nanos).sum()), at);
        let bytes: u64 = stats().map(|stats| stats.memory.working_set_bytes).sum();
        memory.add(&labels, bytes as f64, at);
    }
    metrics.extend([cpu, memory]);
}
