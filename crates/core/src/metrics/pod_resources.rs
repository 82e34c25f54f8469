//! Requests to the PodResources socket, by the version of its API: `v1` or `v1alpha1`.

use std::sync::LazyLock;

use prometheus::IntCounterVec;

const LABELS: &[&str] = &["server_api_version"];

/// All requests.
pub static REQUESTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| requests("requests_total", "Requests to the PodResources socket"));
/// Requests for lists.
pub static LIST_REQUESTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| requests("requests_list", "Requests for all pods to the PodResources socket"));
/// Requests for one pod.
pub static GET_REQUESTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| requests("requests_get", "Requests for one pod to the PodResources socket"));
/// Those that failed.
pub static GET_ERRORS: LazyLock<IntCounterVec> =
    LazyLock::new(|| requests("errors_get", "Requests for one pod to the PodResources socket that failed"));
/// Requests for what the node has.
pub static ALLOCATABLE_REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    requests("requests_get_allocatable", "Requests for the node's resources to the PodResources socket")
});

fn requests(name: &str, help: &str) -> IntCounterVec {
    super::int_counter_vec(&format!("kubelet_pod_resources_endpoint_{name}"), help, LABELS)
}
