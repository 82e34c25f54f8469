//! What a control group is limited to (upstream: `ResourceConfigForPod` in `helpers_linux.go`).

use std::collections::BTreeMap;

use coracle_provider::cpu::{millis_to_quota, millis_to_shares};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::PodExt;
use crate::pod_resources::{PodResourcesOptions, Resources, parse, pod_limits, pod_requests};
use crate::qos::pod_qos;
use crate::quantity::Quantity;

/// The weight of what asks for nothing (`MinShares`).
pub(super) const MIN_SHARES: i64 = 2;

const HUGE_PAGES: &str = "hugepages-";

/// Limits and weights of a control group (`ResourceConfig`). What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceConfig {
    /// Memory in bytes; -1 is no limit, and 0 leaves it alone.
    pub memory: Option<i64>,
    /// The weight of its processes, as shares: 2 to 262144.
    pub cpu_shares: Option<i64>,
    /// Processor time in a period, in microseconds; -1 is no limit, and 0 leaves it alone.
    pub cpu_quota: Option<i64>,
    /// That period, in microseconds.
    pub cpu_period: Option<i64>,
    /// Processes and threads; -1 is no limit.
    pub pids: Option<i64>,
    /// Bytes of huge pages by their size in bytes. A size that is missing here is limited to 0.
    pub huge_pages: Option<BTreeMap<i64, i64>>,
}

/// What a pod as a whole is limited to. `quota_period` is in microseconds; without it processor time has no limit.
pub fn resource_config_for_pod(pod: &Pod, quota_period: Option<i64>, default_period: i64) -> ResourceConfig {
    let requests = pod_requests(pod, PodResourcesOptions::default());
    let limits = pod_limits(pod);
    let amount = |list: &Resources, name| list.get(name).copied().unwrap_or(Quantity::ZERO);
    let millis = |list: &Resources| u64::try_from(amount(list, "cpu").milli_value()).unwrap_or_default();

    let shares = Some(millis_to_shares(millis(&requests)));
    let quota = Some(quota_period.map_or(-1, |period| millis_to_quota(millis(&limits), period)));
    let period = Some(quota_period.unwrap_or(default_period));
    let memory = Some(amount(&limits, "memory").value());
    let config = match pod_qos(pod).as_str() {
        "Guaranteed" => ResourceConfig {
            memory,
            cpu_shares: shares,
            cpu_quota: quota,
            cpu_period: period,
            ..ResourceConfig::default()
        },
        "Burstable" => {
            // A limit that not every container has is none of the pod.
            let (cpu_limited, memory_limited) = (is_limited(pod, "cpu"), is_limited(pod, "memory"));
            ResourceConfig {
                memory: memory.filter(|_| memory_limited),
                cpu_shares: shares,
                cpu_quota: quota.filter(|_| cpu_limited),
                cpu_period: period.filter(|_| cpu_limited),
                ..ResourceConfig::default()
            }
        }
        _ => ResourceConfig { cpu_shares: Some(MIN_SHARES), ..ResourceConfig::default() },
    };
    ResourceConfig { huge_pages: Some(huge_page_limits(&requests)), ..config }
}

/// Whether every container has a limit, or the pod says one of itself.
fn is_limited(pod: &Pod, resource: &str) -> bool {
    let is_set = |resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        let limits = parse(resources.and_then(|it| it.limits.as_ref()));
        limits.get(resource).is_some_and(|limit| !limit.is_zero())
    };
    let has_limit = |container: &Container| is_set(container.resources.as_ref());
    is_set(pod.pod_spec().resources.as_ref())
        || pod.init_containers().iter().chain(pod.containers()).all(has_limit)
}

/// Bytes of huge pages by their size (`HugePageLimits`).
pub(super) fn huge_page_limits(resources: &Resources) -> BTreeMap<i64, i64> {
    let mut limits = BTreeMap::new();
    for (name, amount) in resources {
        let size = name.strip_prefix(HUGE_PAGES).and_then(|size| Quantity::parse(size).ok());
        if let Some(size) = size {
            *limits.entry(size.value()).or_default() += amount.value();
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use coracle_provider::cpu::QUOTA_PERIOD_MICROS as PERIOD;
    use serde_json::{Value, json};

    use super::*;

    fn config(spec: &Value, quota_period: Option<i64>) -> ResourceConfig {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        resource_config_for_pod(&pod, quota_period, PERIOD)
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}})
    }

    /// `TestResourceConfigForPod`.
    #[test]
    fn pods_are_limited_as_upstream_limits_them() {
        const MEMORY: i64 = 100 << 20;
        let small = json!({"cpu": "100m", "memory": "100Mi"});
        let large = json!({"cpu": "200m", "memory": "200Mi"});
        let none = json!({});
        let shares = |millis| Some(millis_to_shares(millis));
        let one = |requests: &Value, limits: &Value| json!({"containers": [container(requests.clone(), limits.clone())]});
        let two = |limits: &Value| json!({"containers": [container(small.clone(), large.clone()), container(small.clone(), limits.clone())]});
        // What is asked for, whether there is a quota; shares, quota, memory.
        let table = [
            ("besteffort", one(&none, &none), true, (Some(2), None, None)),
            ("burstable-no-limits", one(&small, &none), true, (shares(100), None, None)),
            (
                "burstable-with-limits",
                one(&small, &large),
                true,
                (shares(100), Some(20_000), Some(2 * MEMORY)),
            ),
            ("burstable-no-quota", one(&small, &large), false, (shares(100), Some(-1), Some(2 * MEMORY))),
            ("burstable-partial-limits", two(&none), true, (shares(200), None, None)),
            ("burstable-all-limits", two(&large), true, (shares(200), Some(40_000), Some(4 * MEMORY))),
            ("guaranteed", one(&small, &small), true, (shares(100), Some(10_000), Some(MEMORY))),
            ("guaranteed-no-quota", one(&small, &small), false, (shares(100), Some(-1), Some(MEMORY))),
        ];
        for (name, spec, enforced, (cpu_shares, cpu_quota, memory)) in table {
            let found = config(&spec, enforced.then_some(PERIOD));
            let cpu_period = cpu_quota.map(|_| PERIOD);
            let expected = ResourceConfig {
                memory,
                cpu_shares,
                cpu_quota,
                cpu_period,
                pids: None,
                huge_pages: Some(BTreeMap::new()),
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_the_pod_says_of_itself_counts_as_a_limit() {
        let spec = json!({"containers": [container(json!({"cpu": "100m"}), json!({}))],
            "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}}});
        let found = config(&spec, Some(PERIOD));
        assert_eq!((found.cpu_shares, found.cpu_quota, found.memory), (Some(204), Some(50_000), None));
    }

    #[test]
    fn the_period_is_the_nodes() {
        let small = json!({"cpu": "100m", "memory": "1Mi"});
        let found = config(&json!({"containers": [container(small.clone(), small)]}), Some(5000));
        assert_eq!((found.cpu_quota, found.cpu_period), (Some(1000), Some(5000)));
    }

    #[test]
    fn huge_pages_are_limited_by_their_size() {
        let asked = json!({"cpu": "1", "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"});
        let found = config(&json!({"containers": [container(asked.clone(), asked)]}), Some(PERIOD));
        assert_eq!(found.huge_pages, Some(BTreeMap::from([(2 << 20, 4 << 20), (1 << 30, 1 << 30)])));
    }
}
