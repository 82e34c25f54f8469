//! `computePodActions`: from what a pod should be and what the runtimes have, what to do. Pure.

use coracle_provider::{ContainerState, NetworkMode, SandboxState};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::restart::{container_should_restart, restart_after_kill, should_container_be_restarted};
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::pod::{PodExt, is_restartable_init_container, restart_policy};
use crate::prober::{ProbeResult, ProbeResults};

/// Why a container is killed (`containerKillReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Nobody knows whether it runs.
    Unknown,
    /// Its image or name changed.
    DefinitionChanged,
    /// It did not start in the time that its startup probe gives it.
    StartupProbe,
    /// Its liveness probe failed.
    LivenessProbe,
    /// Its hook after the start failed.
    FailedPostStartHook,
    /// The pod ends.
    PodEnds,
}

/// A container to kill.
#[derive(Clone, Debug)]
pub struct ContainerToKill {
    /// The instance.
    pub container: RuntimeContainer,
    /// For the event.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// What to do for a pod (`podActions`). Containers to start are indices into the spec.
#[derive(Clone, Debug, Default)]
pub struct PodActions {
    /// Stop all containers and the sandbox.
    pub kill_pod: bool,
    /// Make a sandbox.
    pub create_sandbox: bool,
    /// The newest sandbox, if there is one worth naming.
    pub sandbox_id: Option<String>,
    /// The attempt of the sandbox to make, or of the one there is.
    pub attempt: u32,
    /// Init containers to start, in this order.
    pub init_containers_to_start: Vec<usize>,
    /// Main containers to start.
    pub containers_to_start: Vec<usize>,
    /// Ephemeral containers to start.
    pub ephemeral_containers_to_start: Vec<usize>,
    /// Containers to kill first.
    pub containers_to_kill: Vec<ContainerToKill>,
}

/// Whether a pod needs another sandbox (`PodSandboxChanged`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxChange {
    /// Whether it does.
    pub changed: bool,
    /// The attempt to make it with.
    pub attempt: u32,
    /// The newest sandbox.
    pub id: Option<String>,
    /// Why it does, as the condition PodReadyToStartContainers says it.
    pub message: &'static str,
}

/// Compares the sandboxes of a pod with what its spec wants.
pub fn pod_sandbox_changed(pod: &Pod, runtime: &RuntimePod) -> SandboxChange {
    let changed = |attempt, id, message| SandboxChange { changed: true, attempt, id, message };
    let Some(newest) = runtime.sandboxes.first() else {
        return changed(0, None, "no pod sandbox exists");
    };
    let next = newest.attempt + 1;
    let id = Some(newest.id.clone());
    if runtime.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count() > 1 {
        return changed(next, id, "multiple pod sandboxes are ready and need to be reconciled");
    }
    if newest.state != SandboxState::Ready {
        return changed(next, id, "pod sandbox is not ready");
    }
    let wanted = if pod.is_host_network() { NetworkMode::Node } else { NetworkMode::Pod };
    if newest.network.mode != wanted {
        return changed(next, None, "network namespace mode changed and sandbox needs to be recreated");
    }
    if wanted == NetworkMode::Pod && newest.network.ips.is_empty() {
        return changed(next, id, "pod sandbox has no IP address");
    }
    SandboxChange { changed: false, attempt: newest.attempt, id, message: "" }
}

/// Decides what to do for a pod.
pub fn compute_pod_actions(pod: &Pod, runtime: &RuntimePod, probes: &ProbeResults) -> PodActions {
    let sandbox = pod_sandbox_changed(pod, runtime);
    let mut actions = PodActions {
        kill_pod: sandbox.changed,
        create_sandbox: sandbox.changed,
        sandbox_id: sandbox.id,
        attempt: sandbox.attempt,
        ..PodActions::default()
    };
    if sandbox.changed {
        start_over(pod, runtime, &mut actions);
        return actions;
    }

    actions.ephemeral_containers_to_start = missing_ephemeral_containers(pod, runtime);
    let initialized = compute_init_container_actions(pod, runtime, probes, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }

    let kept = compute_main_container_actions(pod, runtime, probes, &mut actions);
    if kept == 0 && actions.containers_to_start.is_empty() {
        actions.kill_pod = true;
        // A sidecar must not keep a finished pod alive.
        actions.init_containers_to_start.clear();
    }
    actions
}

/// A new sandbox: everything begins from the first init container, unless the pod is done.
fn start_over(pod: &Pod, runtime: &RuntimePod, actions: &mut PodActions) {
    if pod.restart_policy() == restart_policy::NEVER && actions.attempt != 0 && !can_go_on(pod, runtime) {
        actions.create_sandbox = false;
        return;
    }
    let to_start: Vec<usize> =
        (0..pod.containers().len()).filter(|i| is_to_run(&pod.containers()[*i], pod, runtime)).collect();
    if to_start.is_empty() && runtime.has_any_regular_container_created(pod) {
        actions.create_sandbox = false;
        return;
    }
    if pod.init_containers().is_empty() {
        actions.containers_to_start = to_start;
    } else {
        actions.init_containers_to_start = vec![0];
    }
}

/// Whether a pod that never restarts has something left to run in another sandbox. Upstream takes one that has any container
/// for done: if that did not start, or another has yet to, the pod is pending for ever there.
fn can_go_on(pod: &Pod, runtime: &RuntimePod) -> bool {
    let mut init = pod.init_containers().iter().filter(|c| !is_restartable_init_container(c));
    let has_failed = init.any(|c| {
        let ended = runtime.find(&c.name).filter(|s| s.state == ContainerState::Exited);
        ended.is_some_and(|s| s.exit_code != 0 && !container_should_restart(c, pod, s.exit_code))
    });
    !has_failed && pod.containers().iter().any(|c| is_to_run(c, pod, runtime))
}

/// Whether a main container has yet to run, or again, once its sandbox is gone. Upstream looks for success under
/// `OnFailure` only: a container that never restarts, in a pod that does, would run twice, and its status be refused.
fn is_to_run(container: &Container, pod: &Pod, runtime: &RuntimePod) -> bool {
    runtime.find(&container.name).is_none_or(|last| match last.state {
        ContainerState::Created => true,
        ContainerState::Exited => container_should_restart(container, pod, last.exit_code),
        ContainerState::Running | ContainerState::Unknown => restart_after_kill(container, pod),
    })
}

/// Ephemeral containers run once, whether or not initialisation is complete.
fn missing_ephemeral_containers(pod: &Pod, runtime: &RuntimePod) -> Vec<usize> {
    let all = pod.pod_spec().ephemeral_containers.as_deref().unwrap_or_default();
    (0..all.len()).filter(|i| runtime.find(&all[*i].name).is_none()).collect()
}

/// Decides about main containers; returns how many running ones stay as they are.
fn compute_main_container_actions(
    pod: &Pod,
    runtime: &RuntimePod,
    probes: &ProbeResults,
    actions: &mut PodActions,
) -> usize {
    let mut kept = 0;
    for (index, container) in pod.containers().iter().enumerate() {
        let status = runtime.find(&container.name);
        let Some(running) = status.filter(|s| s.state == ContainerState::Running) else {
            if should_container_be_restarted(container, pod, runtime) {
                actions.containers_to_start.push(index);
                if let Some(unknown) = status.filter(|s| s.state == ContainerState::Unknown) {
                    // It may run: two instances must never run at once.
                    actions.containers_to_kill.push(kill_unknown("Container", unknown));
                }
            }
            continue;
        };
        let Some((reason, why)) = reason_to_kill(container, running, probes) else {
            kept += 1;
            continue;
        };
        let mut message = format!("Container {} {why}", container.name);
        // What the user has changed runs as it is now, whatever the policy.
        if reason == KillReason::DefinitionChanged || restart_after_kill(container, pod) {
            message.push_str(", will be restarted");
            actions.containers_to_start.push(index);
        }
        actions.containers_to_kill.push(ContainerToKill { container: running.clone(), message, reason });
    }
    kept
}

/// Why a running container cannot stay as it is, if so.
fn reason_to_kill(
    container: &Container,
    running: &RuntimeContainer,
    probes: &ProbeResults,
) -> Option<(KillReason, &'static str)> {
    let id = running.container_id();
    if running.changed(container) {
        Some((KillReason::DefinitionChanged, "definition changed"))
    } else if probes.liveness.get(&id) == Some(ProbeResult::Failure) {
        Some((KillReason::LivenessProbe, "failed liveness probe"))
    } else if probes.startup.get(&id) == Some(ProbeResult::Failure) {
        Some((KillReason::StartupProbe, "failed startup probe"))
    } else {
        None
    }
}

/// Whether what comes after a running sidecar may start. Without a startup probe, running is enough.
fn sidecar_has_started(container: &Container, running: &RuntimeContainer, probes: &ProbeResults) -> bool {
    container.startup_probe.is_none()
        || probes.startup.get(&running.container_id()) == Some(ProbeResult::Success)
}

fn kill_unknown(what: &str, status: &RuntimeContainer) -> ContainerToKill {
    ContainerToKill {
        container: status.clone(),
        message: format!("{what} is in \"unknown\" state, try killing it before restart"),
        reason: KillReason::Unknown,
    }
}

/// Decides about init containers; returns whether the pod is initialised (`computeInitContainerActions`).
///
/// It goes from the last to the first, because finished ones may be gone from the runtime: the last one that is
/// there tells how far the pod has come.
fn compute_init_container_actions(
    pod: &Pod,
    runtime: &RuntimePod,
    probes: &ProbeResults,
    actions: &mut PodActions,
) -> bool {
    let containers = pod.init_containers();
    if containers.is_empty() {
        return true;
    }
    let mut pod_has_initialized = runtime.has_any_active_regular_container_started(pod);
    let mut previously_initialized = pod_has_initialized;
    let last = containers.len() - 1;
    let mut to_start = Vec::new();

    for (i, container) in containers.iter().enumerate().rev() {
        let sidecar = is_restartable_init_container(container);
        let Some(status) = runtime.find_active(&container.name) else {
            if previously_initialized && sidecar {
                to_start.push(i);
            }
            continue;
        };
        if previously_initialized && !sidecar {
            continue;
        }
        let mut initialized = || {
            if i == last {
                pod_has_initialized = true;
            }
            i != last
        };
        match (status.state, sidecar) {
            // Made but not started: the runtime failed between the two.
            (ContainerState::Created, _) => to_start.push(i),
            (ContainerState::Running, false) => {}
            (ContainerState::Running, true) => {
                let has_started = sidecar_has_started(container, status, probes);
                if has_started && initialized() && !previously_initialized {
                    to_start.push(i + 1);
                }
                if let Some((reason, why)) = reason_to_kill(container, status, probes) {
                    let message = format!("Init container {} {why}", container.name);
                    actions.containers_to_kill.push(ContainerToKill {
                        container: status.clone(),
                        message,
                        reason,
                    });
                    to_start.push(i);
                }
            }
            (ContainerState::Exited, true) => to_start.push(i),
            (ContainerState::Exited, false) if status.exit_code == 0 => {
                if initialized() {
                    to_start.push(i + 1);
                }
            }
            (ContainerState::Exited, false) => {
                if !container_should_restart(container, pod, status.exit_code) || pod.is_deleting() {
                    actions.kill_pod = true;
                    return false;
                }
                to_start.push(i);
            }
            (ContainerState::Unknown, _) => {
                if !sidecar && !restart_after_kill(container, pod) {
                    actions.kill_pod = true;
                    return false;
                }
                actions.containers_to_kill.push(kill_unknown("Init container", status));
                to_start.push(i);
            }
        }
        previously_initialized = true;
    }

    if !previously_initialized {
        to_start.push(0);
    }
    to_start.reverse();
    actions.init_containers_to_start = to_start;
    pod_has_initialized
}

#[cfg(test)]
mod tests;
