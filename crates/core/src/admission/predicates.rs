//! What the kubelet checks again although the scheduler did: pods may come without it, and nodes change (upstream:
//! `pkg/kubelet/lifecycle/predicate.go`).

use k8s_openapi::api::core::v1::{Node, Pod};

use super::node_affinity::matches_node;
use super::node_info::{NodeInfo, Resource, is_extended_resource};
use super::tolerations::tolerates_no_execute;
use super::{PodAdmitAttributes, PredicateFailure, Rejection};
use crate::nodestatus::{LABEL_OS, OPERATING_SYSTEM};
use crate::pod::PodExt;
use crate::pod_resources::{PodResourcesOptions, pod_requests};

pub(super) const NODE_AFFINITY: &str = "NodeAffinity";

/// What no eviction of others can cure.
pub(super) fn check_node(attributes: &PodAdmitAttributes<'_>) -> Result<(), Rejection> {
    let pod = attributes.pod;
    // The pod's own label, as upstream, whatever the node's says.
    let os_label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_OS));
    if os_label.is_some_and(|os| os != OPERATING_SYSTEM) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if pod.pod_spec().os.as_ref().is_some_and(|os| os.name != OPERATING_SYSTEM) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    if wants_strict_groups(pod) && !has_strict_groups(attributes.node) {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(Rejection::new("SupplementalGroupsPolicyNotSupported", message));
    }
    Ok(())
}

fn wants_strict_groups(pod: &Pod) -> bool {
    let policy =
        pod.pod_spec().security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    policy == Some("Strict")
}

fn has_strict_groups(node: Option<&Node>) -> bool {
    let features = node.and_then(|node| node.status.as_ref()?.features.as_ref());
    features.and_then(|f| f.supplemental_groups_policy).unwrap_or(false)
}

/// Everything that does not fit (`generalFilter`). Resources that no node says that it has are the cluster's business.
pub(super) fn general_filter(attributes: &PodAdmitAttributes<'_>, max_pods: usize) -> Vec<PredicateFailure> {
    let pod = attributes.pod;
    let others = attributes.other_pods.iter().map(AsRef::as_ref).filter(|other| other.uid() != pod.uid());
    let info = NodeInfo::new(attributes.node, others);
    let mut failures = fits(pod, &info, max_pods);
    let mut fail = |name, description| failures.push(PredicateFailure::Predicate { name, description });
    if attributes.node.is_some_and(|node| !matches_node(pod, node)) {
        fail(NODE_AFFINITY, "node(s) didn't match Pod's node affinity/selector");
    }
    let wanted_node = pod.pod_spec().node_name.as_deref().unwrap_or_default();
    let name = attributes.node.and_then(|node| node.metadata.name.as_deref());
    if !wanted_node.is_empty() && name.is_some_and(|name| name != wanted_node) {
        fail("NodeName", "node(s) didn't match the requested node name");
    }
    if info.used_ports.conflict_with(pod) {
        fail("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let taints = attributes.node.and_then(|node| node.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.pod_spec().tolerations.as_deref().unwrap_or_default();
    if !pod.is_static() && !tolerates_no_execute(tolerations, taints) {
        fail("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    failures
}

/// `fitsRequest`.
fn fits(pod: &Pod, info: &NodeInfo<'_>, max_pods: usize) -> Vec<PredicateFailure> {
    let mut failures = Vec::new();
    let mut insufficient = |resource: &str, requested, used, capacity| {
        let resource = resource.to_owned();
        failures.push(PredicateFailure::InsufficientResource { resource, requested, used, capacity });
    };
    let used = i64::try_from(info.pods).unwrap_or(i64::MAX);
    let capacity = info.allowed_pods.unwrap_or_else(|| i64::try_from(max_pods).unwrap_or(i64::MAX));
    if used >= capacity {
        insufficient("pods", 1, used, capacity);
    }
    let Some(allocatable) = &info.allocatable else { return failures };
    let mut requested = Resource::of(&pod_requests(pod, PodResourcesOptions::default()));
    requested.scalar.retain(|name, _| !is_extended_resource(name) || allocatable.scalar.contains_key(name));
    for (resource, wanted) in requested.iter().filter(|(_, wanted)| *wanted > 0) {
        let (used, capacity) = (info.requested.get(resource), allocatable.get(resource));
        if wanted > capacity.saturating_sub(used) {
            insufficient(resource, wanted, used, capacity);
        }
    }
    failures
}
