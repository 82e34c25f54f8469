//! What a pod asks for as a whole (upstream: `component-helpers/resource/helpers.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::fieldpath::ResourceList;
use crate::pod::{PodExt, container_status, is_restartable_init_container};
use crate::quantity::Quantity;

/// Amounts by the name of the resource.
pub type Resources = BTreeMap<String, Quantity>;

/// What counts (`PodResourcesOptions`). By default: what the spec says of the containers and of the pod, and the pod's
/// overhead.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodResourcesOptions {
    /// The largest of what the spec says, what was allocated, and what is in force (`UseStatusResources`).
    pub use_status: bool,
    /// Without the pod's overhead.
    pub exclude_overhead: bool,
    /// Only what is said of the pod as a whole.
    pub skip_container_level: bool,
}

/// The requests of a pod (`PodRequests`): all main containers and sidecars at once, or an init container beside the
/// sidecars before it, whichever is more; what the pod says of itself wins over both.
pub fn pod_requests(pod: &Pod, options: PodResourcesOptions) -> Resources {
    let mut requests = match (options.skip_container_level, options.use_status) {
        (true, _) => Resources::new(),
        (false, false) => sum_containers(pod, |container, _| spec_requests(container)),
        (false, true) => requests_with_status(pod),
    };
    if is_pod_level_requests_set(pod) {
        for (name, amount) in pod_level_requests(pod, options.use_status) {
            if is_supported_at_pod_level(&name) {
                requests.insert(name, amount);
            }
        }
    }
    if !options.exclude_overhead {
        add(&mut requests, &parse(pod.pod_spec().overhead.as_ref()));
    }
    requests
}

/// The limits of a pod, as far as it is limited (`PodLimits`): summed up as its requests are.
pub fn pod_limits(pod: &Pod) -> Resources {
    let mut limits = sum_containers(pod, |container, _| {
        parse(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
    });
    let own = parse(pod.pod_spec().resources.as_ref().and_then(|r| r.limits.as_ref()));
    limits.extend(own.into_iter().filter(|(name, _)| is_supported_at_pod_level(name)));
    for (name, overhead) in parse(pod.pod_spec().overhead.as_ref()) {
        if let Some(limit) = limits.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit = *limit + overhead;
        }
    }
    limits
}

/// One resource of a pod as whole units, processors in thousandths (`GetResourceRequest`). Any pod is one of `pods`.
pub fn resource_request(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" {
        return 1;
    }
    let options = PodResourcesOptions {
        exclude_overhead: true,
        skip_container_level: is_pod_level_resources_set(pod),
        ..PodResourcesOptions::default()
    };
    let mut amount = pod_requests(pod, options).get(resource).copied().unwrap_or(Quantity::ZERO);
    let overhead = parse(pod.pod_spec().overhead.as_ref());
    if let Some(overhead) = overhead.get(resource).filter(|_| !amount.is_zero()) {
        amount = amount + *overhead;
    }
    if resource == "cpu" { amount.milli_value() } else { amount.value() }
}

/// Whether the pod says of itself, beside its containers, what it needs (`IsPodLevelResourcesSet`).
pub fn is_pod_level_resources_set(pod: &Pod) -> bool {
    let limits = pod.pod_spec().resources.as_ref().and_then(|r| r.limits.as_ref());
    is_pod_level_requests_set(pod) || limits.into_iter().flatten().any(|(n, _)| is_supported_at_pod_level(n))
}

/// Parses a list; the apiserver lets nothing through that does not parse.
pub(crate) fn parse(list: Option<&ResourceList>) -> Resources {
    let entries = list.into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), Quantity::try_from(amount).ok()?))).collect()
}

fn is_pod_level_requests_set(pod: &Pod) -> bool {
    let requests = pod.pod_spec().resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.into_iter().flatten().any(|(name, _)| is_supported_at_pod_level(name))
}

fn is_supported_at_pod_level(resource: &str) -> bool {
    ["cpu", "memory"].contains(&resource) || resource.starts_with("hugepages-")
}

fn pod_level_requests(pod: &Pod, use_status: bool) -> Resources {
    let spec = parse(pod.pod_spec().resources.as_ref().and_then(|r| r.requests.as_ref()));
    let status = pod.pod_status();
    let Some(actuated) = status.resources.as_ref().filter(|_| use_status) else { return spec };
    let mut all = if is_resize_infeasible(pod) { Resources::new() } else { spec };
    raise(&mut all, &parse(actuated.requests.as_ref()));
    raise(&mut all, &parse(status.allocated_resources.as_ref()));
    all
}

fn requests_with_status(pod: &Pod) -> Resources {
    let infeasible = is_resize_infeasible(pod);
    let spec = |container: &Container| if infeasible { Resources::new() } else { spec_requests(container) };
    let allocated = |status: Option<&ContainerStatus>| {
        status.and_then(|s| s.allocated_resources.as_ref()).map(|list| parse(Some(list)))
    };
    let actuated = |status: Option<&ContainerStatus>| {
        let requests = status.and_then(|s| s.resources.as_ref()?.requests.as_ref());
        requests.map(|list| parse(Some(list)))
    };
    let mut all = if infeasible { Resources::new() } else { sum_containers(pod, |c, _| spec_requests(c)) };
    let status = pod.pod_status();
    let of_pod = status.resources.as_ref().and_then(|r| r.requests.as_ref());
    if let (Some(of_pod), Some(allocated)) = (of_pod, &status.allocated_resources) {
        raise(&mut all, &parse(Some(of_pod)));
        raise(&mut all, &parse(Some(allocated)));
        return all;
    }
    raise(&mut all, &sum_containers(pod, |c, s| allocated(s).unwrap_or_else(|| spec(c))));
    raise(
        &mut all,
        &sum_containers(pod, |c, s| actuated(s).or_else(|| allocated(s)).unwrap_or_else(|| spec(c))),
    );
    all
}

/// `IsPodResizeInfeasible`: then the spec says something that will not come.
fn is_resize_infeasible(pod: &Pod) -> bool {
    let conditions = pod.pod_status().conditions.as_deref().unwrap_or_default();
    let pending = conditions.iter().find(|c| c.type_ == "PodResizePending");
    pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

fn spec_requests(container: &Container) -> Resources {
    parse(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn sum_containers(pod: &Pod, of: impl Fn(&Container, Option<&ContainerStatus>) -> Resources) -> Resources {
    let status = pod.pod_status();
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let requests = |container: &Container| {
        let found = lists.iter().find_map(|l| container_status(l.as_deref()?, &container.name));
        of(container, found)
    };
    let mut sum = Resources::new();
    for container in pod.containers() {
        add(&mut sum, &requests(container));
    }
    let (mut sidecars, mut initializing) = (Resources::new(), Resources::new());
    for container in pod.init_containers() {
        let mut own = requests(container);
        if is_restartable_init_container(container) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut initializing, &own);
    }
    raise(&mut sum, &initializing);
    sum
}

fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        sum.entry(name.clone()).and_modify(|a| *a = *a + *amount).or_insert(*amount);
    }
}

fn raise(largest: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let entry = largest.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
    }

    fn container(name: &str, policy: Option<&str>, cpu: &str) -> Value {
        json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}})
    }

    fn cpu(pod: &Pod, options: PodResourcesOptions) -> String {
        pod_requests(pod, options).get("cpu").map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn the_spec_says_what_a_pod_needs() {
        let main = |cpu| container("main", None, cpu);
        let (init, side) = (|cpu| container("init", None, cpu), |cpu| container("side", Some("Always"), cpu));
        let cases = [
            (json!({"containers": []}), ""),
            (json!({"containers": [main("1"), main("500m")]}), "1500m"),
            (json!({"containers": [main("1")], "overhead": {"cpu": "100m"}}), "1100m"),
            (json!({"containers": [main("1")], "initContainers": [init("3")]}), "3"),
            (json!({"containers": [main("4")], "initContainers": [init("3"), init("2")]}), "4"),
            (json!({"containers": [main("1")], "initContainers": [side("2")]}), "3"),
            (json!({"containers": [main("1")], "initContainers": [side("2"), init("5")]}), "7"),
            (json!({"containers": [main("1")], "initContainers": [init("5"), side("2")]}), "5"),
            (json!({"containers": [main("1")], "resources": {"requests": {"cpu": "9"}}}), "9"),
            (json!({"containers": [main("1")], "resources": {"limits": {"cpu": "9"}}}), "1"),
            (json!({"containers": [main("1")], "resources": {"requests": {"example.com/x": "9"}}}), "1"),
            (
                json!({"containers": [main("1")], "resources": {"requests": {"cpu": "2"}},
                    "overhead": {"cpu": "1"}}),
                "3",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(
                cpu(&pod(spec.clone(), json!({})), PodResourcesOptions::default()),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn limits_are_summed_up_and_overhead_counts_where_there_is_a_limit() {
        let limited = |cpu: &str| json!({"name": "c", "resources": {"limits": {"cpu": cpu}}});
        let pod = pod(
            json!({"containers": [limited("1"), {"name": "d"}], "initContainers": [limited("3")],
                "resources": {"limits": {"memory": "1Mi", "other": "1"}},
                "overhead": {"cpu": "100m", "hugepages-2Mi": "2Mi"}}),
            json!({}),
        );
        let limits: Vec<_> = pod_limits(&pod).into_iter().map(|(n, q)| format!("{n} {q}")).collect();
        assert_eq!(limits, ["cpu 3100m", "memory 1Mi"]);
    }

    #[test]
    fn what_runs_counts_as_long_as_it_has_more() {
        let options = PodResourcesOptions { use_status: true, ..PodResourcesOptions::default() };
        let of = |allocated: &str, actuated: &str| {
            json!({"containerStatuses": [{"name": "main", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "allocatedResources": {"cpu": allocated},
            "resources": {"requests": {"cpu": actuated}}}]})
        };
        let infeasible = |mut status: Value| {
            status["conditions"] =
                json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
            status
        };
        let cases = [
            (json!({}), "2"),
            (of("1", "1"), "2"),
            (of("3", "1"), "3"),
            (of("1", "4"), "4"),
            (infeasible(of("1", "1")), "1"),
            (infeasible(json!({})), ""),
            (json!({"allocatedResources": {"cpu": "5"}, "resources": {"requests": {"cpu": "1"}}}), "5"),
        ];
        for (status, expected) in cases {
            let spec = json!({"containers": [container("main", None, "2")]});
            assert_eq!(cpu(&pod(spec, status.clone()), options), expected, "{status}");
        }
    }

    #[test]
    fn one_resource_is_a_number() {
        let pod = pod(
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Ki"}}}],
                "overhead": {"cpu": "10m", "example.com/x": "5"}}),
            json!({}),
        );
        let cases = [("cpu", 110), ("memory", 1024), ("pods", 1), ("example.com/x", 0), ("other", 0)];
        for (resource, expected) in cases {
            assert_eq!(resource_request(&pod, resource), expected, "{resource}");
        }
    }
}
