//! From what the runtimes have of a pod to the status that the API shows (upstream: `generateAPIPodStatus`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements};

use super::conditions::{ConditionInput, keep_disruption_target};
use super::container_statuses::{ContainerKind, Conversion, set_started_and_ready};
use super::phase::get_phase;
use crate::active_deadline::Eviction;
use crate::allocation::{PodResourceInfo, update_from_allocation};
use crate::fieldpath::ResourceList;
use crate::kuberuntime::{RuntimePod, should_all_containers_restart};
use crate::pod::{PodExt, ephemeral_containers, phase};
use crate::pod_resources::{PodResourcesOptions, pod_limits, pod_requests};
use crate::prober::ProbeResults;
use crate::qos::pod_qos;
use crate::reason_cache::ReasonCache;

/// What a status is made from, beside the pod.
pub struct StatusInput<'a> {
    /// What the runtimes have.
    pub runtime: &'a RuntimePod,
    /// The status that was generated last; the pod's own if there is none yet.
    pub old: &'a PodStatus,
    /// Nothing of the pod will run again.
    pub is_terminal: bool,
    /// Why containers could not be started.
    pub reasons: &'a ReasonCache,
    /// What probes have found.
    pub probes: &'a ProbeResults,
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [IpAddr],
    /// What the runtimes were told last of the pod's resources.
    pub actuated: &'a PodResourceInfo,
    /// How far a resize of the pod has come.
    pub resize_conditions: &'a [PodCondition],
    /// Why the pod has to end, if it has to.
    pub eviction: Option<Eviction>,
}

/// Generates the status of a pod. Pure.
pub fn generate_api_pod_status(pod: &Pod, input: &StatusInput<'_>) -> PodStatus {
    let (runtime, old) = (input.runtime, input.old);
    let conversion = Conversion {
        pod,
        runtime,
        reasons: input.reasons,
        actuated: input.actuated,
        restarting: should_all_containers_restart(pod, runtime, old),
    };
    let convert = |previous: &Option<Vec<_>>, containers: &[_], kind| {
        let previous = previous.as_deref().unwrap_or_default();
        let mut statuses = conversion.container_statuses(previous, containers, kind);
        set_started_and_ready(containers, &mut statuses, previous, kind, input.probes);
        statuses
    };
    let init = convert(&old.init_container_statuses, pod.init_containers(), ContainerKind::Init);
    let main = convert(&old.container_statuses, pod.containers(), ContainerKind::Main);
    let ephemeral_specs = ephemeral_containers(pod);
    let ephemeral = convert(&old.ephemeral_container_statuses, &ephemeral_specs, ContainerKind::Ephemeral);

    let all: Vec<_> = init.iter().chain(&main).cloned().collect();
    let has_initialized = runtime.has_any_active_regular_container_started(pod);
    let computed = get_phase(pod, &all, input.is_terminal, has_initialized);
    // A pod that has ended is not ended by its deadline as well.
    let has_ended =
        [pod.phase(), old.phase.as_deref().unwrap_or_default()].into_iter().any(phase::is_terminal);
    let eviction = input.eviction.filter(|_| !has_ended);
    let evicted = eviction.map(|_| phase::FAILED);
    let phase = final_phase(pod, old, evicted.unwrap_or(computed)).to_owned();
    let conditions = ConditionInput { pod, statuses: &all, phase: &phase, old };
    let conditions = conditions.generate(runtime, input.resize_conditions);

    let mut status = PodStatus {
        qos_class: Some(pod_qos(pod)),
        conditions: Some(conditions),
        container_statuses: non_empty(main),
        init_container_statuses: non_empty(init),
        ephemeral_container_statuses: non_empty(ephemeral),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    set_resources(pod, input.actuated, &mut status);
    if old.phase.as_deref() == Some(&phase) {
        // Reason and message belong to the phase.
        status.reason = old.reason.clone().or_else(|| pod.pod_status().reason.clone());
        status.message = old.message.clone().or_else(|| pod.pod_status().message.clone());
    }
    if let Some(eviction) = eviction {
        status.reason = Some(eviction.reason.to_owned());
        status.message = Some(eviction.message.to_owned());
    }
    status.phase = Some(phase);
    keep_disruption_target(old, &mut status);
    set_addresses(pod, input, &mut status);
    status
}

/// A terminal phase never changes, wherever it was seen first.
fn final_phase<'a>(pod: &'a Pod, old: &'a PodStatus, computed: &'a str) -> &'a str {
    let old_phase = old.phase.as_deref().unwrap_or_default();
    if phase::is_terminal(pod.phase()) {
        pod.phase()
    } else if phase::is_terminal(old_phase) {
        old_phase
    } else {
        computed
    }
}

/// What the pod as a whole was given, and what it has (`convertToAPIPodLevelResourcesStatus`). Nothing is said of a pod
/// that asks for nothing.
fn set_resources(pod: &Pod, actuated: &PodResourceInfo, status: &mut PodStatus) {
    let requests = |pod: &Pod| pod_requests(pod, PodResourcesOptions::default());
    let list = |amounts: crate::pod_resources::Resources| {
        let some = amounts.into_iter().filter(|(_, amount)| !amount.is_zero());
        let list = some.map(|(name, amount)| (name, amount.into())).collect();
        non_empty_list(list)
    };
    status.allocated_resources = list(requests(pod));
    let running = update_from_allocation(pod, actuated);
    let running = running.as_ref().unwrap_or(pod);
    let (requests, limits) = (list(requests(running)), list(pod_limits(running)));
    if requests.is_some() || limits.is_some() {
        status.resources = Some(ResourceRequirements { requests, limits, claims: None });
    }
}

fn non_empty_list(list: ResourceList) -> Option<ResourceList> {
    (!list.is_empty()).then_some(list)
}

/// Addresses outlive the sandbox: the API shows them until the pod is gone.
fn set_addresses(pod: &Pod, input: &StatusInput<'_>, status: &mut PodStatus) {
    let hosts = &input.host_ips[..input.host_ips.len().min(2)];
    let ips = pod_ips(pod.is_host_network(), &input.runtime.ips(), hosts);
    let mut ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    if ips.is_empty() && (pod.is_deleting() || input.is_terminal) {
        ips = input.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = non_empty(ips.into_iter().map(|ip| PodIP { ip }).collect());
    status.host_ip = hosts.first().map(ToString::to_string);
    status.host_ips = non_empty(hosts.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
}

/// The first address of each family, that of the node's first address before the other (`sortPodIPs`). A pod on the
/// node's network has the node's addresses where it has none, or not of both families.
fn pod_ips(is_host_network: bool, ips: &[IpAddr], hosts: &[IpAddr]) -> Vec<IpAddr> {
    let v4_first = hosts.first().is_none_or(IpAddr::is_ipv4);
    let of_family = |v4: bool| ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
    let mut ips: Vec<IpAddr> = [of_family(v4_first), of_family(!v4_first)].into_iter().flatten().collect();
    if is_host_network {
        if ips.is_empty() {
            ips.extend(hosts.first());
        }
        let missing = match (ips.as_slice(), hosts) {
            ([one], [_, second]) if one.is_ipv4() != second.is_ipv4() => Some(*second),
            _ => None,
        };
        ips.extend(missing);
    }
    ips
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
