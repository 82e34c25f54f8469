//! What `/metrics` says of the kubelet as it is now; what it has counted is in the registry.

use coracle_core::host::Counts;
use coracle_core::machine::ProcessUsage;
use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use super::family::Family;
use super::{epoch_seconds, seconds};
use crate::about::About;

pub(super) fn kubelet_metrics(
    about: &About,
    counts: &Counts,
    process: Option<&ProcessUsage>,
) -> Vec<MetricFamily> {
    let mut metrics = vec![
        Family::gauge("kubelet_node_name", "Always 1; the label is the name of the node", &["node"])
            .with(&[&about.node_name], 1.0),
        build_info(&about.version),
        Family::gauge("kubelet_running_pods", "Pods with a sandbox that is ready", &[])
            .with(&[], counts.running_pods as f64),
        by_kind("kubelet_desired_pods", "Pods that this node is to have", counts.desired_pods),
        by_kind("kubelet_active_pods", "Pods of this node that have not ended", counts.active_pods),
        Family::gauge("kubelet_mirror_pods", "Mirrors of static pods", &[])
            .with(&[], counts.mirror_pods as f64),
    ];
    let mut containers =
        Family::gauge("kubelet_running_containers", "Containers by their state", &["container_state"]);
    for (state, count) in &counts.containers {
        containers.add(&[state], *count as f64, None);
    }
    metrics.push(containers);
    metrics.extend(process.into_iter().flat_map(process_metrics));
    metrics.into_iter().filter_map(Family::finish).collect()
}

/// How long the serving certificate is still valid, whoever made it; upstream tells it of those that it asked the cluster
/// for (`certificate/kubelet.go`).
pub(super) fn certificate_ttl(expires_at: Option<i64>) -> Option<MetricFamily> {
    let left = expires_at.map_or(f64::INFINITY, |at| (at - Timestamp::now().as_second()) as f64);
    let help = "How long the serving certificate is still valid, in seconds; +Inf if it cannot be read";
    Family::gauge("kubelet_certificate_manager_server_ttl_seconds", help, &[]).with(&[], left).finish()
}

fn by_kind(name: &str, help: &str, (regular, is_static): (usize, usize)) -> Family {
    let family = Family::gauge(name, help, &["static"]);
    family.with(&[""], regular as f64).with(&["true"], is_static as f64)
}

/// `kubernetes_build_info` (component-base's `metrics/version`).
fn build_info(version: &str) -> Family {
    let number = version.strip_prefix('v').unwrap_or(version);
    let mut parts = number.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let names = &["git_version", "major", "minor", "platform"];
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    Family::gauge("kubernetes_build_info", "Always 1; the labels say what this is", names)
        .with(&[version, major, minor, &platform], 1.0)
}

/// What Prometheus' client libraries say of their process.
pub(super) fn process_metrics(process: &ProcessUsage) -> [Family; 6] {
    let gauge = |name: &str, help: &str, value: f64| Family::gauge(name, help, &[]).with(&[], value);
    [
        Family::counter("process_cpu_seconds_total", "Processor time of this process, in seconds", &[])
            .with(&[], seconds(process.cpu_nanos)),
        gauge("process_open_fds", "Files that are open", process.open_fds as f64),
        gauge("process_max_fds", "Files that may be open", process.max_fds as f64),
        gauge("process_resident_memory_bytes", "Resident memory, in bytes", process.resident_bytes as f64),
        gauge("process_virtual_memory_bytes", "Mapped addresses, in bytes", process.virtual_bytes as f64),
        process_start(process),
    ]
}

pub(super) fn process_start(process: &ProcessUsage) -> Family {
    let help = "When this process was started, in seconds since 1970";
    Family::gauge("process_start_time_seconds", help, &[]).with(&[], epoch_seconds(process.started_at))
}
