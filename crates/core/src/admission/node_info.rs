//! What a node has and what is taken of it (upstream: `NodeInfo`, `Resource` and `HostPortInfo` of the scheduler's framework).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Node, Pod};

use crate::fieldpath::validate_qualified_name;
use crate::pod::{PodExt, is_restartable_init_container};
use crate::pod_resources::{PodResourcesOptions, Resources, parse, pod_requests};

const ALL_ADDRESSES: &str = "0.0.0.0";

/// Amounts as whole numbers, processors in thousandths (`Resource`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) milli_cpu: i64,
    pub(super) memory: i64,
    pub(super) ephemeral_storage: i64,
    pub(super) scalar: BTreeMap<String, i64>,
}

impl Resource {
    pub(super) fn of(resources: &Resources) -> Self {
        let mut all = Self::default();
        for (name, amount) in resources {
            match name.as_str() {
                "cpu" => all.milli_cpu = amount.milli_value(),
                "memory" => all.memory = amount.value(),
                "ephemeral-storage" => all.ephemeral_storage = amount.value(),
                _ if is_scalar_resource(name) => {
                    all.scalar.insert(name.clone(), amount.value());
                }
                _ => {}
            }
        }
        all
    }

    fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let sum = self.scalar.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Every resource by its name, in upstream's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let known =
            [("cpu", self.milli_cpu), ("memory", self.memory), ("ephemeral-storage", self.ephemeral_storage)];
        known.into_iter().chain(self.scalar.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    pub(super) fn get(&self, resource: &str) -> i64 {
        self.iter().find(|(name, _)| *name == resource).map_or(0, |(_, amount)| amount)
    }
}

/// A node and the pods on it.
pub(super) struct NodeInfo<'a> {
    /// What pods may have; none if nobody knows.
    pub(super) allocatable: Option<Resource>,
    /// How many pods there may be, if the node says so.
    pub(super) allowed_pods: Option<i64>,
    pub(super) requested: Resource,
    pub(super) used_ports: HostPorts<'a>,
    pub(super) pods: usize,
}

impl<'a> NodeInfo<'a> {
    pub(super) fn new(node: Option<&Node>, pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let allocatable = node.and_then(|n| n.status.as_ref()?.allocatable.as_ref()).map(|a| parse(Some(a)));
        let mut info = Self {
            allowed_pods: allocatable.as_ref().and_then(|a| a.get("pods")).map(|pods| pods.value()),
            allocatable: allocatable.as_ref().map(Resource::of),
            requested: Resource::default(),
            used_ports: HostPorts::default(),
            pods: 0,
        };
        let options = PodResourcesOptions { use_status: true, ..PodResourcesOptions::default() };
        for pod in pods {
            info.pods += 1;
            info.requested.add(&Resource::of(&pod_requests(pod, options)));
            info.used_ports.0.extend(host_ports(pod).map(HostPort::of));
        }
        info
    }
}

/// Ports of the node that are taken.
#[derive(Default)]
pub(super) struct HostPorts<'a>(Vec<HostPort<'a>>);

#[derive(PartialEq, Eq)]
struct HostPort<'a> {
    address: &'a str,
    protocol: &'a str,
    port: i32,
}

impl<'a> HostPort<'a> {
    fn of(port: &'a ContainerPort) -> Self {
        let or =
            |text: &'a Option<String>, default| text.as_deref().filter(|t| !t.is_empty()).unwrap_or(default);
        Self {
            address: or(&port.host_ip, ALL_ADDRESSES),
            protocol: or(&port.protocol, "TCP"),
            port: port.host_port.unwrap_or_default(),
        }
    }
}

impl HostPorts<'_> {
    /// Whether a pod wants a port that another one has (`CheckConflict`). An address conflicts with itself and with
    /// all addresses together.
    pub(super) fn conflict_with(&self, pod: &Pod) -> bool {
        let meet = |a: &str, b: &str| a == b || a == ALL_ADDRESSES || b == ALL_ADDRESSES;
        host_ports(pod).map(HostPort::of).any(|wanted| {
            let mut same = self.0.iter().filter(|u| u.port == wanted.port && u.protocol == wanted.protocol);
            same.any(|used| meet(used.address, wanted.address))
        })
    }
}

/// Ports of containers that run all the time (`GetHostPorts`).
fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let sidecars = pod.init_containers().iter().filter(|c| is_restartable_init_container(c));
    let containers = sidecars.chain(pod.containers());
    containers.flat_map(|c| c.ports.iter().flatten()).filter(|p| p.host_port.is_some_and(|port| port > 0))
}

/// `IsScalarResourceName`.
fn is_scalar_resource(name: &str) -> bool {
    is_extended_resource(name)
        || name.starts_with("hugepages-")
        || is_prefixed_native(name)
        || name.starts_with("attachable-volumes-")
}

/// Whether a resource is none of Kubernetes' own (`IsExtendedResourceName`).
pub(super) fn is_extended_resource(name: &str) -> bool {
    let is_native = !name.contains('/') || is_prefixed_native(name);
    !is_native
        && !name.starts_with("requests.")
        && validate_qualified_name(&format!("requests.{name}")).is_ok()
}

fn is_prefixed_native(name: &str) -> bool {
    name.contains("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_tell_what_a_resource_is() {
        let cases = [
            ("cpu", false, false),
            ("hugepages-2Mi", false, true),
            ("attachable-volumes-x", false, true),
            ("kubernetes.io/x", false, true),
            ("deviceclass.resource.kubernetes.io/x", false, true),
            ("example.com/x", true, true),
            ("requests.example.com/x", false, false),
            ("example.com/", false, false),
            ("Example.com/x", false, false),
        ];
        for (name, extended, scalar) in cases {
            assert_eq!((is_extended_resource(name), is_scalar_resource(name)), (extended, scalar), "{name}");
        }
    }

    #[test]
    fn ports_conflict_where_their_addresses_meet() {
        let pod = |container: &str, ip: &str, protocol: &str, port: i32| -> Pod {
            let spec = json!({"name": "c", "restartPolicy": (container == "side").then_some("Always"),
                "ports": [{"containerPort": 1, "hostIP": ip, "protocol": protocol, "hostPort": port}]});
            let lists = if container == "main" {
                ("containers", "initContainers")
            } else {
                ("initContainers", "containers")
            };
            serde_json::from_value(json!({"spec": {(lists.0): [spec], (lists.1): []}})).unwrap()
        };
        let cases = [
            (pod("main", "", "TCP", 80), true),
            (pod("side", "", "TCP", 80), true),
            (pod("init", "", "TCP", 80), false),
            (pod("main", "", "", 80), true),
            (pod("main", "", "UDP", 80), false),
            (pod("main", "", "TCP", 81), false),
            (pod("main", "", "TCP", 0), false),
            (pod("main", "127.0.0.1", "TCP", 80), true),
            (pod("main", "127.0.0.2", "TCP", 80), false),
            (pod("main", "0.0.0.0", "TCP", 80), true),
        ];
        let used = pod("main", "127.0.0.1", "TCP", 80);
        for (wanted, expected) in cases {
            let info = NodeInfo::new(None, [&used]);
            assert_eq!(info.used_ports.conflict_with(&wanted), expected, "{:?}", wanted.spec);
        }
        let everywhere = pod("main", "", "TCP", 80);
        let info = NodeInfo::new(None, [&everywhere]);
        assert!(info.used_ports.conflict_with(&used));
    }
}
