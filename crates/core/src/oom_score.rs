//! Who is killed first when memory runs out (upstream: `pkg/kubelet/qos/policy.go`).

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::allocation::Amounts;
use crate::pod::{PodExt, is_restartable_init_container};
use crate::pod_resources::{PodResourcesOptions, pod_requests};
use crate::preemption::is_critical_pod;
use crate::qos::pod_qos;
use crate::quantity::Quantity;

const GUARANTEED: i64 = -997;
const BEST_EFFORT: i64 = 1000;
/// The priority class of pods that their node needs.
const NODE_CRITICAL: &str = "system-node-critical";

/// The adjustment of a container on a machine with this much memory, in bytes (`GetContainerOOMScoreAdjust`).
pub(crate) fn container_oom_score_adjust(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    if is_critical_pod(pod) && pod.pod_spec().priority_class_name.as_deref() == Some(NODE_CRITICAL) {
        return GUARANTEED;
    }
    match pod_qos(pod).as_str() {
        "Guaranteed" => return GUARANTEED,
        "BestEffort" => return BEST_EFFORT,
        _ => {}
    }
    let capacity = i64::try_from(memory_capacity).unwrap_or(i64::MAX).max(1);
    let score = |request: i64| 1000 - 1000_i64.saturating_mul(request) / capacity;
    let unallocated = unallocated_share(pod);
    let mut adjust = score(memory_request(container).saturating_add(unallocated));
    if is_restartable_init_container(container) && is_init(pod, container) {
        // A sidecar is not killed before those that it serves.
        let least = pod.containers().iter().map(memory_request).min().unwrap_or_default();
        adjust = adjust.min(score(least.saturating_add(unallocated)));
    }
    // Above those of guaranteed pods, which can reach 3 with all of the memory, and below those of best effort.
    adjust.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

fn is_init(pod: &Pod, container: &Container) -> bool {
    pod.init_containers().iter().any(|init| init.name == container.name)
}

/// What a pod asks for beyond its containers, for each of them (`remainingPodMemReqPerContainer`).
fn unallocated_share(pod: &Pod) -> i64 {
    let own = pod.pod_spec().resources.as_ref().map_or(0, |own| request(Some(own)));
    if own == 0 {
        return 0;
    }
    let mut containers_only = pod.clone();
    if let Some(spec) = &mut containers_only.spec {
        spec.resources = None;
    }
    let options = PodResourcesOptions { exclude_overhead: true, ..PodResourcesOptions::default() };
    let given = pod_requests(&containers_only, options).get("memory").map_or(0, Quantity::value);
    let number = pod.containers().len() + pod.init_containers().len();
    own.saturating_sub(given).max(0) / i64::try_from(number.max(1)).unwrap_or(i64::MAX)
}

fn memory_request(container: &Container) -> i64 {
    request(container.resources.as_ref())
}

fn request(resources: Option<&ResourceRequirements>) -> i64 {
    Amounts::of_container(None, resources).memory_request
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CAPACITY: u64 = 4_000_000_000;

    fn adjust(spec: Value) -> i64 {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        container_oom_score_adjust(&pod, &pod.containers()[0], CAPACITY)
    }

    fn container(resources: Value) -> Value {
        json!({ "name": "c", "image": "i", "resources": resources })
    }

    /// `TestGetContainerOOMScoreAdjust`.
    #[test]
    fn adjustments_are_upstreams() {
        let memory = |request: &str, limit: &str| json!({"requests": {"memory": request, "cpu": "5m"}, "limits": {"memory": limit, "cpu": "5m"}});
        let burst = |request: &str| json!({ "requests": { "memory": request } });
        assert_eq!(adjust(json!({ "containers": [container(json!({}))] })), 1000);
        assert_eq!(adjust(json!({ "containers": [container(memory("10G", "10G"))] })), -997);
        assert_eq!(adjust(json!({ "containers": [container(burst("3200000000"))] })), 200);
        assert_eq!(adjust(json!({ "containers": [container(burst("1"))] })), 999, "less than best effort");
        assert_eq!(adjust(json!({ "containers": [container(burst("20G"))] })), 3, "more than guaranteed");
        let mut critical = json!({ "priority": 2_000_001_000, "containers": [container(json!({}))] });
        assert_eq!(adjust(critical.clone()), 1000);
        critical["priorityClassName"] = json!(NODE_CRITICAL);
        assert_eq!(adjust(critical), -997);
        let pod_level = json!({
            "resources": { "requests": { "memory": "2G" } },
            "containers": [container(burst("1G")), {"name": "d", "image": "i"}],
        });
        assert_eq!(adjust(pod_level), 1000 - 1000 * 15 / 40);
    }

    #[test]
    fn a_sidecar_is_no_sooner_killed_than_what_it_serves() {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "initContainers": [{ "name": "s", "image": "i", "restartPolicy": "Always" }],
            "containers": [container(json!({ "requests": { "memory": "2G" } }))],
        }}))
        .unwrap();
        assert_eq!(container_oom_score_adjust(&pod, &pod.init_containers()[0], CAPACITY), 500);
    }
}
