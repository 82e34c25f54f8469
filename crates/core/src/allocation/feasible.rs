//! Whether a resize can work at all (upstream: `allocation/handlers.go`).

use coracle_provider::LiveResize;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::requirements::Amounts;
use crate::kuberuntime::RuntimePod;
use crate::pod::PodExt;

/// Checks a resize from what was allocated to what is desired. `live_resize` says what the provider of that name can
/// change while a container runs; a container that is restarted for it, or does not run, can have anything.
pub fn check_resize(
    desired: &Pod,
    allocated: &Pod,
    runtime: &RuntimePod,
    live_resize: impl Fn(&'static str) -> LiveResize,
) -> Result<(), String> {
    let all = |pod: &Pod| -> Vec<Container> {
        pod.init_containers().iter().chain(pod.containers()).cloned().collect()
    };
    let old = all(allocated);
    for container in all(desired) {
        let Some(before) = old.iter().find(|c| c.name == container.name) else { continue };
        let Some(running) = runtime.running_containers().find(|c| c.name == container.name) else { continue };
        let amounts = |pod: &Pod, resources: &Option<ResourceRequirements>| {
            Amounts::of_container(pod.pod_spec().resources.as_ref(), resources.as_ref())
        };
        let (from, to) = (amounts(allocated, &before.resources), amounts(desired, &container.resources));
        let cpu = (from.cpu_limit, from.cpu_request) != (to.cpu_limit, to.cpu_request);
        let memory = (from.memory_limit, from.memory_request) != (to.memory_limit, to.memory_request);
        let restarts =
            (cpu && restarts_for(&container, "cpu")) || (memory && restarts_for(&container, "memory"));
        if restarts {
            continue;
        }
        let can = live_resize(running.provider);
        for (resource, is_resized, can) in [("cpu", cpu, can.cpu), ("memory", memory, can.memory)] {
            if is_resized && !can {
                return Err(format!(
                    "Resize of {resource} is infeasible for container {}: the {} runtime cannot change it while the \
                     container runs, and its resizePolicy for {resource} is not RestartContainer",
                    container.name, running.provider
                ));
            }
        }
    }
    Ok(())
}

/// Whether a container is restarted when a resource of it changes. It is not if nothing is said.
pub(crate) fn restarts_for(container: &Container, resource: &str) -> bool {
    let policy = container.resize_policy.iter().flatten().find(|policy| policy.resource_name == resource);
    policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
}

#[cfg(test)]
mod tests {
    use coracle_provider::ContainerState;
    use serde_json::{Value, json};

    use super::*;
    use crate::kuberuntime::test_support::runtime_of;

    fn pod(cpu: &str, memory: &str, policy: Value) -> Pod {
        let limits = json!({"cpu": cpu, "memory": memory});
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [
            {"name": "c", "image": "i", "resizePolicy": policy, "resources": {"limits": limits}}]}}))
        .unwrap()
    }

    #[test]
    fn what_the_provider_cannot_change_while_it_runs_needs_a_restart() {
        let restart = |name: &str| json!([{"resourceName": name, "restartPolicy": "RestartContainer"}]);
        let memory_only = LiveResize { cpu: false, memory: true };
        let cases = [
            (pod("1", "2Mi", json!([])), memory_only, None),
            (pod("2", "1Mi", json!([])), memory_only, Some("cpu")),
            (pod("2", "2Mi", json!([])), memory_only, Some("cpu")),
            (pod("2", "1Mi", restart("cpu")), memory_only, None),
            (pod("2", "1Mi", restart("memory")), memory_only, Some("cpu")),
            (pod("2", "2Mi", restart("memory")), memory_only, None),
            (pod("1", "2Mi", json!([])), LiveResize::default(), Some("memory")),
            (pod("1", "1Mi", json!([])), LiveResize::default(), None),
        ];
        for (desired, can, expected) in cases {
            let allocated = pod("1", "1Mi", json!([]));
            let runtime = runtime_of(&allocated);
            let actual = check_resize(&desired, &allocated, &runtime, |_| can);
            let message = expected.map(|resource| {
                format!(
                    "Resize of {resource} is infeasible for container c: the p runtime cannot change it while the \
                     container runs, and its resizePolicy for {resource} is not RestartContainer"
                )
            });
            assert_eq!(actual.err(), message, "{:?}", desired.spec);
        }
    }

    #[test]
    fn a_container_that_does_not_run_can_have_anything() {
        let (allocated, desired) = (pod("1", "1Mi", json!([])), pod("2", "2Mi", json!([])));
        let mut runtime = runtime_of(&allocated);
        std::sync::Arc::make_mut(&mut runtime.containers[0].status).state = ContainerState::Exited;
        assert_eq!(check_resize(&desired, &allocated, &runtime, |_| LiveResize::default()), Ok(()));
    }
}
