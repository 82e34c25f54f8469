//! What is told of a pod that has to go (upstream: `evictionMessage` in `helpers.go`).

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus, ResourceRequirements};

use super::observations::Observations;
use super::rank::{ContainerFigures, PodFigures};
use super::signal::Resource;
use super::threshold::Threshold;
use crate::pod::{PodExt, phase};
use crate::pod_resources::{is_pod_level_resources_set, parse};
use crate::quantity::{Format, Quantity};
use crate::recorder::reason;

/// Says what runs out, and which of the pod's containers use more of it than they asked for. `thresholds` are those that
/// are met.
pub fn eviction_message(
    resource: Resource,
    pod: &Pod,
    figures: Option<&PodFigures>,
    thresholds: &[Threshold],
    observations: &Observations,
) -> String {
    let mut message = format!("The node was low on resource: {resource}. ");
    let of_resource = thresholds.iter().filter(|threshold| threshold.signal.resource() == resource);
    let mut observed = of_resource.filter_map(|it| Some((it, observations.get(&it.signal)?)));
    if let Some((threshold, observed)) = observed.next() {
        let quantity = threshold.value.amount(observed.capacity);
        let _ = write!(message, "Threshold quantity: {quantity}, available: {}. ", observed.available);
    }
    let Some(figures) = figures else { return message };
    let own = pod.pod_spec().resources.as_ref();
    if resource == Resource::Memory
        && is_pod_level_resources_set(pod)
        && let Some(request) = request(own, resource)
    {
        let usage = bytes(figures.memory());
        message += &consumption("Pod", pod.name(), usage, request, resource);
    }
    for running in &figures.containers {
        let mut all = pod.containers().iter().chain(pod.init_containers());
        let container: Option<&Container> = all.find(|container| container.name == running.name);
        let (Some(container), Some(usage)) = (container, usage(running, resource)) else { continue };
        let request = request(container.resources.as_ref(), resource).unwrap_or(Quantity::ZERO);
        if usage > request {
            message += &consumption("Container", &container.name, usage, request, resource);
        }
    }
    message
}

/// What the status of a pod says that had to go. With `is_disrupted`, controllers that count failures are told that this
/// one was not its own.
pub fn evicted_status(pod: &Pod, message: &str, is_disrupted: bool, status: &mut PodStatus) {
    status.phase = Some(phase::FAILED.to_owned());
    status.reason = Some(reason::EVICTED.to_owned());
    status.message = Some(message.to_owned());
    if is_disrupted {
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message.to_owned()),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
}

fn consumption(what: &str, name: &str, usage: Quantity, request: Quantity, resource: Resource) -> String {
    format!("{what} {name} was using {usage}, request is {request}, has larger consumption of {resource}. ")
}

fn request(resources: Option<&ResourceRequirements>, resource: Resource) -> Option<Quantity> {
    parse(resources.and_then(|it| it.requests.as_ref())).get(resource.as_str()).copied()
}

/// Only of memory and space it is known what a container uses; of space only if all of it is known.
fn usage(container: &ContainerFigures, resource: Resource) -> Option<Quantity> {
    match resource {
        Resource::Memory => Some(bytes(container.memory)),
        Resource::EphemeralStorage => {
            Some(bytes(container.rootfs?.used_bytes.saturating_add(container.logs?.used_bytes)))
        }
        Resource::Inodes | Resource::Pids => None,
    }
}

fn bytes(value: u64) -> Quantity {
    Quantity::new(i64::try_from(value).unwrap_or(i64::MAX), Format::BinarySi)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_provider::DiskStats;
    use serde_json::{Value, json};

    use super::*;
    use crate::eviction::{Observation, Signal, ThresholdValue};

    const MIB: u64 = 1 << 20;

    fn container(name: &str, request: &str) -> Value {
        let requests = if request.is_empty() { json!({}) } else { json!({ "memory": request }) };
        json!({"name": name, "resources": {"requests": requests}})
    }

    fn message(spec: Value, used: &[(&str, u64)]) -> String {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let containers = used.iter().map(|(name, mib)| ContainerFigures {
            name: (*name).to_owned(),
            memory: mib * MIB,
            ..ContainerFigures::default()
        });
        let figures = PodFigures { containers: containers.collect(), ..PodFigures::default() };
        eviction_message(Resource::Memory, &pod, Some(&figures), &[], &Observations::new())
    }

    /// `TestEvictionMessage`.
    #[test]
    fn containers_that_use_more_than_they_asked_for_are_named() {
        const LOW: &str = "The node was low on resource: memory. ";
        let init = json!([container("init1", "100Mi"), container("side1", "200Mi")]);
        let spec = |main: Value| json!({"initContainers": init, "containers": main});
        let main = json!([container("regular1", "200Mi")]);
        let more = |name: &str, usage: &str, request: &str| {
            format!(
                "Container {name} was using {usage}, request is {request}, has larger consumption of memory. "
            )
        };
        let cases = [
            (spec(main.clone()), vec![("side1", 150), ("regular1", 100)], String::new()),
            (spec(main.clone()), vec![("init1", 150)], more("init1", "150Mi", "100Mi")),
            (spec(main.clone()), vec![("side1", 200), ("regular1", 150), ("ephemeral1", 250)], String::new()),
            (
                spec(json!([container("regular1", "")])),
                vec![("side1", 250), ("regular1", 200)],
                more("side1", "250Mi", "200Mi") + &more("regular1", "200Mi", "0"),
            ),
            (
                json!({"containers": [container("regular1", "")], "resources": {"requests": {"memory": "250Mi"}}}),
                vec![("regular1", 600)],
                "Pod p was using 600Mi, request is 250Mi, has larger consumption of memory. ".to_owned()
                    + &more("regular1", "600Mi", "0"),
            ),
        ];
        for (spec, used, expected) in cases {
            assert_eq!(message(spec, &used), LOW.to_owned() + &expected);
        }
    }

    #[test]
    fn the_threshold_and_what_is_left_are_named() {
        let quantity = |text| Quantity::parse(text).unwrap();
        let threshold = Threshold {
            signal: Signal::ImageFsAvailable,
            value: ThresholdValue::Percentage(0.15),
            grace_period: Duration::ZERO,
            min_reclaim: None,
        };
        let observed = Observation { available: quantity("5Gi"), capacity: quantity("100Gi") };
        let observations = Observations::from([(Signal::ImageFsAvailable, observed)]);
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        let disk = |mib| Some(DiskStats { used_bytes: mib * MIB, inodes_used: 1 });
        let of = |rootfs, logs| {
            let container =
                ContainerFigures { name: "c".to_owned(), rootfs, logs, ..ContainerFigures::default() };
            let figures = PodFigures { containers: vec![container], ..PodFigures::default() };
            eviction_message(Resource::EphemeralStorage, &pod, Some(&figures), &[threshold], &observations)
        };
        let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 16106128000, available: 5Gi. ";
        assert_eq!(of(disk(1), None), low);
        let more = "Container c was using 3Mi, request is 0, has larger consumption of ephemeral-storage. ";
        assert_eq!(of(disk(1), disk(2)), low.to_owned() + more);
        let nothing =
            eviction_message(Resource::EphemeralStorage, &pod, None, &[threshold], &Observations::new());
        assert_eq!(nothing, "The node was low on resource: ephemeral-storage. ");
    }
}
