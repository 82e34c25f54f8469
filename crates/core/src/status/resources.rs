//! The resources that a container has (upstream: `convertContainerStatusResources` in `kubelet_pods.go`).

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, ResourceRequirements};

use crate::allocation::Amounts;
use crate::fieldpath::ResourceList;
use crate::kuberuntime::RuntimeContainer;
use crate::quantity::{Format, Quantity};

/// Up to this, the kernel knows no smaller CPU limit, in thousandths of a core (`MinMilliCPULimit`).
const MIN_CPU_LIMIT: i64 = 10;
/// The same of requests (`MinShares`).
const MIN_CPU_REQUEST: i64 = 2;

/// What the runtime says holds, where it says so; else what it said before; else what was allocated. `told` is what it
/// was told last: runtimes know nothing of memory requests.
pub(super) fn status_resources(
    allocated: &Container,
    container: &RuntimeContainer,
    told: Option<&ResourceRequirements>,
    old: Option<&ContainerStatus>,
) -> ResourceRequirements {
    let mut resources = allocated.resources.clone().unwrap_or_default();
    if container.state != ContainerState::Running {
        return resources;
    }
    let now = &container.resources;
    let (told, spec) =
        (Amounts::of_container(None, told), Amounts::of_container(None, allocated.resources.as_ref()));
    let old = old.filter(|old| is_same_running(old, container)).and_then(|old| old.resources.as_ref());
    let milli = |value| Quantity::new_milli(value, Format::DecimalSi);
    let bytes = |value| Quantity::new(value, Format::BinarySi);
    let number = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok());
    if let Some(limits) = &mut resources.limits {
        let old = old.and_then(|r| r.limits.as_ref());
        let cpu = number(now.cpu_limit_millis);
        let is_shown = |value: &i64| *value > MIN_CPU_LIMIT || spec.cpu_limit > MIN_CPU_LIMIT;
        set(limits, "cpu", cpu.map(|v| is_shown(&v).then(|| milli(v))), old);
        set(limits, "memory", number(now.memory_limit_bytes).map(|v| Some(bytes(v))), old);
    }
    if let Some(requests) = &mut resources.requests {
        let old = old.and_then(|r| r.requests.as_ref());
        let cpu = number(now.cpu_request_millis);
        let is_shown = |value: &i64| *value > MIN_CPU_REQUEST || spec.cpu_request > MIN_CPU_REQUEST;
        set(requests, "cpu", cpu.map(|v| is_shown(&v).then(|| milli(v))), old);
        let memory = number(now.memory_request_bytes).or(Some(told.memory_request).filter(|v| *v > 0));
        set(requests, "memory", memory.map(|v| Some(bytes(v))), old);
    }
    resources
}

/// Sets an amount. The outer `None`: the runtime says nothing, so what was shown before stays. The inner one: what was
/// allocated is as good.
fn set(list: &mut ResourceList, name: &str, now: Option<Option<Quantity>>, old: Option<&ResourceList>) {
    match now {
        Some(Some(amount)) => {
            list.insert(name.to_owned(), amount.into());
        }
        Some(None) => {}
        None => {
            if let Some(before) = old.and_then(|old| old.get(name)) {
                list.insert(name.to_owned(), before.clone());
            }
        }
    }
}

fn is_same_running(old: &ContainerStatus, container: &RuntimeContainer) -> bool {
    let was_running = old.state.as_ref().is_some_and(|s| s.running.is_some());
    was_running && old.container_id.as_deref() == Some(&container.container_id())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_provider::Resources;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::kuberuntime::test_support::running;

    fn shown(state: ContainerState, allocated: Value, now: Resources, told: Value, old: Value) -> Value {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "resources": allocated})).unwrap();
        let mut runtime = running(&Pod::default(), &container);
        let status = Arc::make_mut(&mut runtime.status);
        (status.state, status.resources) = (state, now);
        let old = json!({"name": "c", "containerID": "p://c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "state": {"running": {}}, "resources": old});
        let (old, told): (ContainerStatus, ResourceRequirements) =
            (serde_json::from_value(old).unwrap(), serde_json::from_value(told).unwrap());
        serde_json::to_value(status_resources(&container, &runtime, Some(&told), Some(&old))).unwrap()
    }

    #[test]
    fn what_holds_is_shown() {
        use ContainerState::{Exited, Running};
        let all = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let both =
            |cpu: &str, memory: &str| json!({"limits": all(cpu, memory), "requests": all(cpu, memory)});
        let now = Resources {
            cpu_limit_millis: Some(200),
            cpu_request_millis: Some(150),
            memory_limit_bytes: Some(2 << 20),
            memory_request_bytes: None,
        };
        let tiny =
            Resources { cpu_limit_millis: Some(10), cpu_request_millis: Some(2), ..Resources::default() };
        let cases = [
            (Exited, both("100m", "1Mi"), now.clone(), json!({}), json!({}), both("100m", "1Mi")),
            (
                Running,
                both("100m", "1Mi"),
                now.clone(),
                both("1", "3Mi"),
                json!({}),
                json!({"limits": all("200m", "2Mi"), "requests": all("150m", "3Mi")}),
            ),
            // Nothing is shown of what was not asked for.
            (Running, json!({}), now, json!({}), both("1", "1Mi"), json!({})),
            (
                Running,
                both("5m", "1Mi"),
                tiny,
                json!({}),
                both("9", "7Mi"),
                json!({"limits": all("5m", "7Mi"), "requests": all("2m", "7Mi")}),
            ),
            (Running, both("1", "1Mi"), Resources::default(), json!({}), both("2", "2Mi"), both("2", "2Mi")),
        ];
        for (state, allocated, now, told, old, expected) in cases {
            let name = format!("{state:?} {allocated} {now:?} {told} {old}");
            assert_eq!(shown(state, allocated, now, told, old), expected, "{name}");
        }
    }
}
