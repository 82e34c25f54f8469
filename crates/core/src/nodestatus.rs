//! What the Node object of this node says (upstream: `pkg/kubelet/kubelet_node_status.go`, `nodestatus/setters.go`).

mod merge;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::machine::MachineInfo;
use crate::quantity::{Format, Quantity};

pub use merge::{NodeEvent, node_status_has_changed, update_default_labels, update_node};

/// The operating system of every node that this kubelet runs on.
pub(crate) const OPERATING_SYSTEM: &str = "linux";

/// The label of the node's host name.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// The label of the node's operating system.
pub const LABEL_OS: &str = "kubernetes.io/os";
/// The label of the node's architecture.
pub const LABEL_ARCH: &str = "kubernetes.io/arch";
const LABEL_OS_BETA: &str = "beta.kubernetes.io/os";
const LABEL_ARCH_BETA: &str = "beta.kubernetes.io/arch";

/// Tells the attach-detach controller that this node's volumes are its business.
pub const ANNOTATION_CONTROLLER_MANAGED_ATTACH: &str =
    "volumes.kubernetes.io/controller-managed-attach-detach";

/// Names for one image that the status lists at most.
const MAX_NAMES_PER_IMAGE: usize = 5;

/// What a node is by configuration.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    /// The Node's name.
    pub name: String,
    /// The host name that is reported.
    pub hostname: String,
    /// The architecture that is reported, as label and in `nodeInfo`: the machine's, or `wasm32-wasi` on a node that
    /// runs nothing but WebAssembly, so that a node selector keeps other images away.
    pub architecture: String,
    /// `--node-labels`; they win over the default labels.
    pub labels: BTreeMap<String, String>,
    /// `--register-with-taints`.
    pub taints: Vec<Taint>,
    /// `--provider-id`, if there is one.
    pub provider_id: Option<String>,
    /// `enableControllerAttachDetach`.
    pub controller_managed_attach: bool,
    /// `maxPods`.
    pub max_pods: u32,
    /// `podsPerCore`; zero for no such limit.
    pub pods_per_core: u32,
    /// What of the machine's resources is not for pods.
    pub reserved: Reserved,
    /// The version of Kubernetes that this kubelet implements, and its own: `v1.37.2+coracle.0.1.0`.
    pub kubelet_version: String,
    /// The name and version of the runtime: `wasm://0.1.0`.
    pub container_runtime_version: String,
    /// The port of the kubelet's API.
    pub kubelet_port: u16,
    /// Features that pods may rely on, for the scheduler.
    pub declared_features: Vec<String>,
    /// Whether `supplementalGroupsPolicy` works; none if the runtime does not say.
    pub supplemental_groups_policy: Option<bool>,
    /// `nodeStatusMaxImages`: images that the status lists at most; none for no limit.
    pub max_images: Option<usize>,
}

/// Resources that are kept from pods: `kubeReserved`, `systemReserved` and the hard eviction thresholds, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes.
    pub ephemeral_storage_bytes: u64,
}

/// What a node is at the moment.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// Its addresses, the one for everybody first.
    pub addresses: Vec<IpAddr>,
    /// Images that are present.
    pub images: Vec<ContainerImage>,
    /// RuntimeClass handlers that work.
    pub runtime_handlers: Vec<NodeRuntimeHandler>,
    /// What keeps the node from being Ready, one line each.
    pub errors: Vec<String>,
    /// Memory runs out.
    pub memory_pressure: bool,
    /// Disk space runs out.
    pub disk_pressure: bool,
    /// Process ids run out.
    pub pid_pressure: bool,
}

/// The Node as it would be created now (`initialNode`). Its conditions have no times yet: [`update_node`] knows them.
pub fn initial_node(settings: &NodeSettings, machine: &MachineInfo, state: &NodeState) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            labels: Some(labels(settings)),
            annotations: settings.controller_managed_attach.then(|| {
                BTreeMap::from([(ANNOTATION_CONTROLLER_MANAGED_ATTACH.to_owned(), "true".to_owned())])
            }),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: non_empty(settings.taints.clone()),
            provider_id: settings.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status(settings, machine, state)),
    }
}

fn labels(settings: &NodeSettings) -> BTreeMap<String, String> {
    let defaults = [
        (LABEL_HOSTNAME, settings.hostname.as_str()),
        (LABEL_OS, OPERATING_SYSTEM),
        (LABEL_OS_BETA, OPERATING_SYSTEM),
        (LABEL_ARCH, &settings.architecture),
        (LABEL_ARCH_BETA, &settings.architecture),
    ];
    let mut labels: BTreeMap<_, _> =
        defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.extend(settings.labels.clone());
    labels
}

fn status(settings: &NodeSettings, machine: &MachineInfo, state: &NodeState) -> NodeStatus {
    let features = settings
        .supplemental_groups_policy
        .map(|works| NodeFeatures { supplemental_groups_policy: Some(works) });
    // The apiserver wants them in order.
    let mut declared_features = settings.declared_features.clone();
    declared_features.sort();
    declared_features.dedup();
    NodeStatus {
        capacity: Some(resources(settings, machine, Reserved::default())),
        allocatable: Some(resources(settings, machine, settings.reserved)),
        addresses: Some(addresses(settings, state)),
        node_info: Some(system_info(settings, machine)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: settings.kubelet_port.into() }),
        }),
        images: non_empty(images(settings, state)),
        runtime_handlers: non_empty(state.runtime_handlers.clone()),
        features,
        declared_features: non_empty(declared_features),
        conditions: Some(conditions(state)),
        ..NodeStatus::default()
    }
}

fn resources(
    settings: &NodeSettings,
    machine: &MachineInfo,
    reserved: Reserved,
) -> BTreeMap<String, ApiQuantity> {
    let cpu_millis = (u64::from(machine.cpus) * 1000).saturating_sub(reserved.cpu_millis);
    let memory = machine.memory_bytes.saturating_sub(reserved.memory_bytes);
    let storage = machine.root_fs_bytes.saturating_sub(reserved.ephemeral_storage_bytes);
    let quantities = [
        ("cpu", Quantity::new_milli(signed(cpu_millis), Format::DecimalSi)),
        ("memory", Quantity::new(signed(memory), Format::BinarySi)),
        ("ephemeral-storage", Quantity::new(signed(storage), Format::BinarySi)),
        ("pods", Quantity::new(pods(settings, machine), Format::DecimalSi)),
    ];
    quantities.into_iter().map(|(name, quantity)| (name.to_owned(), quantity.into())).collect()
}

fn pods(settings: &NodeSettings, machine: &MachineInfo) -> i64 {
    let by_core = match settings.pods_per_core {
        0 => u32::MAX,
        pods => machine.cpus.saturating_mul(pods),
    };
    settings.max_pods.min(by_core).into()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn addresses(settings: &NodeSettings, state: &NodeState) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let ips = state.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", settings.hostname.clone())]).collect()
}

fn system_info(settings: &NodeSettings, machine: &MachineInfo) -> NodeSystemInfo {
    NodeSystemInfo {
        machine_id: machine.machine_id.clone(),
        system_uuid: machine.system_uuid.clone(),
        boot_id: machine.boot_id.clone(),
        kernel_version: machine.kernel_version.clone(),
        os_image: machine.os_image.clone(),
        container_runtime_version: settings.container_runtime_version.clone(),
        kubelet_version: settings.kubelet_version.clone(),
        operating_system: OPERATING_SYSTEM.to_owned(),
        architecture: settings.architecture.clone(),
        swap: (machine.swap_bytes > 0).then(|| NodeSwapStatus { capacity: Some(signed(machine.swap_bytes)) }),
        ..NodeSystemInfo::default()
    }
}

/// The largest images, as the scheduler wants to know who has what already.
fn images(settings: &NodeSettings, state: &NodeState) -> Vec<ContainerImage> {
    let mut images = state.images.clone();
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    images.truncate(settings.max_images.unwrap_or(usize::MAX));
    for names in images.iter_mut().filter_map(|image| image.names.as_mut()) {
        names.truncate(MAX_NAMES_PER_IMAGE);
    }
    images
}

/// Ready comes last: some readers take the last condition for the one that counts.
fn conditions(state: &NodeState) -> Vec<NodeCondition> {
    vec![
        pressure(
            "MemoryPressure",
            state.memory_pressure,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            state.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            state.pid_pressure,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready(&state.errors),
    ]
}

fn pressure(type_: &str, holds: bool, pressed: (&str, &str), relaxed: (&str, &str)) -> NodeCondition {
    let (reason, message) = if holds { pressed } else { relaxed };
    condition(type_, holds, reason, message.to_owned())
}

fn ready(errors: &[String]) -> NodeCondition {
    match errors {
        [] => condition("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        [error] => condition("Ready", false, "KubeletNotReady", error.clone()),
        errors => condition("Ready", false, "KubeletNotReady", format!("[{}]", errors.join(", "))),
    }
}

fn condition(type_: &str, holds: bool, reason: &str, message: String) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: None,
        last_transition_time: None,
    }
}

/// The apiserver forgets empty lists, and what it shows must compare equal to what it was told.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
