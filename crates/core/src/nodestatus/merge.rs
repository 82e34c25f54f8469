//! Bringing the Node that is at the apiserver to what it should say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    ANNOTATION_CONTROLLER_MANAGED_ATTACH, LABEL_ARCH, LABEL_ARCH_BETA, LABEL_HOSTNAME, LABEL_OS,
    LABEL_OS_BETA,
};
use crate::clock::api_time;
use crate::ports::EventType;

/// Labels that a node that exists already takes over from the kubelet's configuration (`updateDefaultLabels`). Others
/// belong to whoever set them.
const DEFAULT_LABELS: [&str; 11] = [
    LABEL_HOSTNAME,
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    LABEL_OS,
    LABEL_ARCH,
    LABEL_OS_BETA,
    LABEL_ARCH_BETA,
];

/// Something about the node that users should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// How bad it is.
    pub event_type: EventType,
    /// Upstream's reason.
    pub reason: &'static str,
    /// One line.
    pub message: String,
}

/// What a kubelet that starts changes about a Node that exists already (`tryRegisterWithAPIServer`): the default labels,
/// and who attaches volumes. Taints stay as they are: they are set once, when the Node is created. Says whether
/// anything changed.
pub fn update_default_labels(node: &mut Node, desired: &Node) -> bool {
    let before = node.metadata.clone();
    let wanted = desired.metadata.labels.iter().flatten();
    let labels = node.metadata.labels.get_or_insert_default();
    for (key, value) in wanted.filter(|(key, _)| DEFAULT_LABELS.contains(&key.as_str())) {
        if value.is_empty() {
            labels.remove(key);
        } else {
            labels.insert(key.clone(), value.clone());
        }
    }
    let attach =
        desired.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_CONTROLLER_MANAGED_ATTACH));
    match attach {
        Some(value) => {
            let annotations = node.metadata.annotations.get_or_insert_default();
            annotations.insert(ANNOTATION_CONTROLLER_MANAGED_ATTACH.to_owned(), value.clone());
        }
        None => {
            if let Some(annotations) = &mut node.metadata.annotations {
                annotations.remove(ANNOTATION_CONTROLLER_MANAGED_ATTACH);
            }
        }
    }
    node.metadata != before
}

/// Brings status and the labels that always hold up to date (`updateNode`, `setNodeStatus`). What other components wrote
/// stays: their conditions, their resources. Says what users should hear of.
pub fn update_node(node: &mut Node, desired: &Node, now: Timestamp) -> Vec<NodeEvent> {
    let name = desired.metadata.name.as_deref().unwrap_or_default().to_owned();
    for key in [LABEL_OS, LABEL_ARCH] {
        if let Some(value) = desired.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            node.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.clone());
        }
    }
    let old = node.status.take().unwrap_or_default();
    let wanted = desired.status.clone().unwrap_or_default();
    let mut events: Vec<_> = reboot(&name, &old, &wanted).into_iter().collect();
    let (capacity, allocatable) = resources(&old, &wanted);
    let conditions = conditions(old.conditions.unwrap_or_default(), &wanted, now, |reason| {
        let message = format!("Node {name} status is now: {reason}");
        events.push(NodeEvent { event_type: EventType::Normal, reason, message });
    });
    node.status = Some(NodeStatus {
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions),
        config: old.config,
        phase: old.phase,
        volumes_attached: old.volumes_attached,
        ..wanted
    });
    events
}

/// Whether two statuses say different things. When a condition was last confirmed is no difference.
pub fn node_status_has_changed(old: &NodeStatus, new: &NodeStatus) -> bool {
    without_heartbeats(old) != without_heartbeats(new)
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    if let Some(conditions) = &mut status.conditions {
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    status
}

fn reboot(name: &str, old: &NodeStatus, new: &NodeStatus) -> Option<NodeEvent> {
    let before = old.node_info.as_ref().map(|info| &info.boot_id).filter(|id| !id.is_empty())?;
    let now = &new.node_info.as_ref()?.boot_id;
    (before != now).then(|| NodeEvent {
        event_type: EventType::Warning,
        reason: "Rebooted",
        message: format!("Node {name} has been rebooted, boot id: {now}"),
    })
}

type Resources = BTreeMap<String, Quantity>;

/// Capacity and what pods may have of it. Resources of others (extended ones) stay, and pods may have all of them.
/// Huge pages that are not offered any more go.
fn resources(old: &NodeStatus, wanted: &NodeStatus) -> (Resources, Resources) {
    let others = old.capacity.iter().flatten().filter(|(name, _)| !name.starts_with("hugepages-"));
    let mut capacity: Resources = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut allocatable = capacity.clone();
    capacity.extend(wanted.capacity.clone().unwrap_or_default());
    allocatable.extend(wanted.allocatable.clone().unwrap_or_default());
    (capacity, allocatable)
}

fn conditions(
    mut conditions: Vec<NodeCondition>,
    wanted: &NodeStatus,
    now: Timestamp,
    mut event: impl FnMut(&'static str),
) -> Vec<NodeCondition> {
    let now = api_time(now);
    for wanted in wanted.conditions.iter().flatten() {
        let old = conditions.iter_mut().find(|condition| condition.type_ == wanted.type_);
        if old.as_ref().is_none_or(|old| old.status != wanted.status)
            && let Some(reason) = event_reason(wanted, old.is_some())
        {
            event(reason);
        }
        let new = NodeCondition {
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(transition(old.as_deref(), wanted, &now)),
            ..wanted.clone()
        };
        match old {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }
    conditions
}

fn transition(old: Option<&NodeCondition>, wanted: &NodeCondition, now: &Time) -> Time {
    old.filter(|old| old.status == wanted.status)
        .and_then(|old| old.last_transition_time.clone())
        .unwrap_or_else(|| now.clone())
}

/// The reason of the event when a condition becomes what it is now. That a node begins as not Ready is no event.
fn event_reason(condition: &NodeCondition, existed: bool) -> Option<&'static str> {
    match (condition.type_.as_str(), condition.status.as_str()) {
        ("Ready", _) if !existed => None,
        ("Ready", "True") => Some("NodeReady"),
        ("Ready", _) => Some("NodeNotReady"),
        ("MemoryPressure", "True") => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", _) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", "True") => Some("NodeHasDiskPressure"),
        ("DiskPressure", _) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", "True") => Some("NodeHasInsufficientPID"),
        ("PIDPressure", _) => Some("NodeHasSufficientPID"),
        _ => None,
    }
}
