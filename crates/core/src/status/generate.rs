//! From what the runtimes have of a pod to the status that the API shows (upstream: `generateAPIPodStatus`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};

use super::conditions::ConditionInput;
use super::container_statuses::{ContainerKind, set_started_and_ready, to_api_container_statuses};
use super::phase::get_phase;
use crate::kuberuntime::RuntimePod;
use crate::pod::{PodExt, ephemeral_containers, phase};
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
}

/// Generates the status of a pod. Pure.
pub fn generate_api_pod_status(pod: &Pod, input: &StatusInput<'_>) -> PodStatus {
    let (runtime, old) = (input.runtime, input.old);
    let convert = |previous: &Option<Vec<_>>, containers: &[_], kind| {
        let previous = previous.as_deref().unwrap_or_default();
        let mut statuses = to_api_container_statuses(pod, runtime, previous, containers, kind, input.reasons);
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
    let phase = final_phase(pod, old, computed).to_owned();
    let conditions = ConditionInput { pod, statuses: &all, phase: &phase }.generate(runtime);

    let mut status = PodStatus {
        qos_class: Some(pod_qos(pod)),
        conditions: Some(conditions),
        container_statuses: non_empty(main),
        init_container_statuses: non_empty(init),
        ephemeral_container_statuses: non_empty(ephemeral),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    if old.phase.as_deref() == Some(&phase) {
        // Reason and message belong to the phase.
        status.reason = old.reason.clone().or_else(|| pod.pod_status().reason.clone());
        status.message = old.message.clone().or_else(|| pod.pod_status().message.clone());
    }
    status.phase = Some(phase);
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

/// Addresses outlive the sandbox: the API shows them until the pod is gone.
fn set_addresses(pod: &Pod, input: &StatusInput<'_>, status: &mut PodStatus) {
    let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut ips = text(&input.runtime.ips());
    let host_ips = text(input.host_ips);
    if pod.is_host_network() && ips.is_empty() {
        ips.clone_from(&host_ips);
    }
    if ips.is_empty() && (pod.is_deleting() || input.is_terminal) {
        ips = input.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = non_empty(ips.into_iter().map(|ip| PodIP { ip }).collect());
    status.host_ip = host_ips.first().cloned();
    status.host_ips = non_empty(host_ips.into_iter().map(|ip| HostIP { ip }).collect());
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
