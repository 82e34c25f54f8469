//! `computePodActions`: from what a pod should be and what the runtimes have, what to do. Pure.

mod init;
mod resize;
mod restart_all;

use coracle_provider::{ContainerState, NetworkMode, SandboxState};
use k8s_openapi::api::core::v1::{Container, Pod};

pub use resize::{ContainerToUpdate, is_pod_resize_in_progress};
pub use restart_all::ContainerToReset;

use super::restart::{container_should_restart, restart_after_kill, should_container_be_restarted};
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::allocation::PodResourceInfo;
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
    /// It gets other resources, and said that it has to be restarted for that.
    Resize,
    /// A container of the pod ended in a way that restarts all.
    RestartAllContainers,
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
    /// Containers that get more or less memory while they run; those that get less come first.
    pub memory_to_update: Vec<ContainerToUpdate>,
    /// The same of processors.
    pub cpu_to_update: Vec<ContainerToUpdate>,
    /// The pod as a whole gets other resources.
    pub update_pod_level_resources: bool,
    /// Containers to remove, in this order, so that all start anew. The one that asked for it is the last.
    pub containers_to_reset: Vec<ContainerToReset>,
}

/// What is decided from.
#[derive(Clone, Copy)]
pub struct ComputeInput<'a> {
    /// The pod, with what is allocated to it.
    pub pod: &'a Pod,
    /// What the runtimes have of it.
    pub runtime: &'a RuntimePod,
    /// What probes have found.
    pub probes: &'a ProbeResults,
    /// What the runtimes were told last of its resources.
    pub actuated: &'a PodResourceInfo,
    /// A container ended in a way that restarts all of them.
    pub restart_all_containers: bool,
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
pub fn compute_pod_actions(input: &ComputeInput<'_>) -> PodActions {
    let ComputeInput { pod, runtime, .. } = *input;
    let sandbox = pod_sandbox_changed(pod, runtime);
    let mut actions = PodActions {
        kill_pod: sandbox.changed,
        create_sandbox: sandbox.changed,
        sandbox_id: sandbox.id,
        attempt: sandbox.attempt,
        ..PodActions::default()
    };
    if input.restart_all_containers {
        actions.containers_to_reset = restart_all::containers_to_reset(pod, runtime);
        return actions;
    }
    if sandbox.changed {
        start_over(pod, runtime, &mut actions);
        return actions;
    }

    actions.ephemeral_containers_to_start = missing_ephemeral_containers(pod, runtime);
    let initialized = init::compute_init_container_actions(input, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }

    let kept = compute_main_container_actions(input, &mut actions);
    if kept == 0 && actions.containers_to_start.is_empty() {
        actions.kill_pod = true;
        // A sidecar must not keep a finished pod alive.
        actions.init_containers_to_start.clear();
    }
    actions.update_pod_level_resources = resize::pod_level_resources_changed(pod, input.actuated);
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

/// Ephemeral containers run once, whether or not initialisation is complete. Upstream leaves one alone that was made and
/// could not be started.
fn missing_ephemeral_containers(pod: &Pod, runtime: &RuntimePod) -> Vec<usize> {
    let all = pod.pod_spec().ephemeral_containers.as_deref().unwrap_or_default();
    let has_run = |name: &str| runtime.find(name).is_some_and(|last| last.state != ContainerState::Created);
    (0..all.len()).filter(|i| !has_run(&all[*i].name)).collect()
}

/// Decides about main containers; returns how many running ones stay as they are.
fn compute_main_container_actions(input: &ComputeInput<'_>, actions: &mut PodActions) -> usize {
    let ComputeInput { pod, runtime, probes, .. } = *input;
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
            if resize::compute_pod_resize_action(input, container, running, actions) {
                kept += 1;
            } else {
                actions.containers_to_start.push(index);
            }
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

fn kill_unknown(what: &str, status: &RuntimeContainer) -> ContainerToKill {
    ContainerToKill {
        container: status.clone(),
        message: format!("{what} is in \"unknown\" state, try killing it before restart"),
        reason: KillReason::Unknown,
    }
}

#[cfg(test)]
mod tests;
