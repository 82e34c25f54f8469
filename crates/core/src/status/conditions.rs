//! The pod conditions that the kubelet owns (upstream: `pkg/kubelet/status/generate.go`).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};

use crate::kuberuntime::{
    ALL_CONTAINERS_RESTARTING, RuntimePod, all_containers_could_restart, all_containers_restart_cleaned_up,
    pod_sandbox_changed, should_all_containers_restart,
};
use crate::pod::{PodExt, container_status, is_restartable_init_container, phase};

/// Types of conditions.
pub(crate) mod condition_type {
    pub(crate) const CONTAINERS_READY: &str = "ContainersReady";
    pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
    pub(crate) const INITIALIZED: &str = "Initialized";
    pub(crate) const READY: &str = "Ready";
    pub(crate) const READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
    pub(crate) const SCHEDULED: &str = "PodScheduled";
}

const OWNED: [&str; 8] = [
    condition_type::SCHEDULED,
    condition_type::READY,
    condition_type::INITIALIZED,
    condition_type::CONTAINERS_READY,
    condition_type::READY_TO_START_CONTAINERS,
    "PodResizeInProgress",
    "PodResizePending",
    ALL_CONTAINERS_RESTARTING,
];

/// Whether the kubelet alone writes conditions of this type (`PodConditionByKubelet`).
pub(crate) fn is_owned_by_kubelet(condition_type: &str) -> bool {
    OWNED.contains(&condition_type)
}

/// Whether the kubelet writes conditions of this type beside others (`PodConditionSharedByKubelet`).
pub(crate) fn is_shared_by_kubelet(condition_type: &str) -> bool {
    condition_type == condition_type::DISRUPTION_TARGET
}

/// That a pod was taken away is told once, when it happens, and does not follow from its containers.
pub(super) fn keep_disruption_target(old: &PodStatus, status: &mut PodStatus) {
    let is_target = |c: &&PodCondition| is_shared_by_kubelet(&c.type_);
    let Some(target) = old.conditions.iter().flatten().find(is_target) else { return };
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| !is_shared_by_kubelet(&c.type_));
    conditions.push(target.clone());
}

/// Whether a readiness gate changed that the Ready condition does not show yet (`NeedToReconcilePodReadiness`).
pub(crate) fn needs_to_reconcile_readiness(pod: &Pod) -> bool {
    if pod.pod_spec().readiness_gates.as_ref().is_none_or(Vec::is_empty) {
        return false;
    }
    let mut wanted = pod.pod_status().clone();
    update_readiness_conditions(pod, &mut wanted);
    let ready = |status: &PodStatus| {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == condition_type::READY);
        found.map(|c| (c.status.clone(), c.message.clone()))
    };
    let shown = ready(pod.pod_status());
    shown.is_some() && shown != ready(&wanted)
}

/// Makes anew the conditions that follow from which containers have started and are ready.
pub(super) fn update_readiness_conditions(pod: &Pod, status: &mut PodStatus) {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let statuses: Vec<ContainerStatus> = lists.into_iter().flatten().flatten().cloned().collect();
    let (phase, old) = (status.phase.clone().unwrap_or_default(), status.clone());
    let input = ConditionInput { pod, statuses: &statuses, phase: &phase, old: &old };
    let conditions = status.conditions.get_or_insert_default();
    for new in [input.initialized(), input.ready(conditions), input.containers_ready()] {
        match conditions.iter_mut().find(|c| c.type_ == new.type_) {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }
}

/// Everything the conditions are made from.
pub(super) struct ConditionInput<'a> {
    pub(super) pod: &'a Pod,
    /// Init and main containers.
    pub(super) statuses: &'a [ContainerStatus],
    pub(super) phase: &'a str,
    /// The status before.
    pub(super) old: &'a PodStatus,
}

impl ConditionInput<'_> {
    /// All conditions that the kubelet owns, after the ones of others, which are kept. `resize` are those about resizes.
    pub(super) fn generate(&self, runtime: &RuntimePod, resize: &[PodCondition]) -> Vec<PodCondition> {
        let mut conditions: Vec<PodCondition> =
            self.pod.pod_status().conditions.iter().flatten().cloned().collect();
        conditions.retain(|c| !is_owned_by_kubelet(&c.type_));
        conditions.extend_from_slice(resize);
        conditions.push(self.ready_to_start_containers(runtime));
        conditions.push(self.initialized());
        conditions.push(self.ready(&conditions));
        conditions.push(self.containers_ready());
        conditions.push(self.condition(condition_type::SCHEDULED, true, None, None));
        if all_containers_could_restart(self.pod) {
            conditions.push(self.all_containers_restarting(runtime));
        }
        conditions
    }

    fn condition(
        &self,
        condition_type: &str,
        status: bool,
        reason: Option<&str>,
        message: Option<String>,
    ) -> PodCondition {
        PodCondition {
            type_: condition_type.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: self.pod.metadata.generation,
            ..PodCondition::default()
        }
    }

    fn ready_to_start_containers(&self, runtime: &RuntimePod) -> PodCondition {
        let change = pod_sandbox_changed(self.pod, runtime);
        let kind = condition_type::READY_TO_START_CONTAINERS;
        if change.changed {
            self.condition(kind, false, Some("PodSandboxNotReady"), Some(change.message.to_owned()))
        } else {
            self.condition(kind, true, None, None)
        }
    }

    /// `GenerateAllContainersRestartingCondition`: it holds from the exit that asks for it until every container is gone.
    fn all_containers_restarting(&self, runtime: &RuntimePod) -> PodCondition {
        let kind = ALL_CONTAINERS_RESTARTING;
        let condition = match self.phase {
            phase::SUCCEEDED => self.condition(kind, false, Some("PodCompleted"), None),
            phase::FAILED => self.condition(kind, false, Some("PodFailed"), None),
            _ if should_all_containers_restart(self.pod, runtime, self.old)
                && !all_containers_restart_cleaned_up(self.pod, runtime) =>
            {
                let message = "container exited with restart policy rule".to_owned();
                self.condition(kind, true, Some("RestartAllContainersStarted"), Some(message))
            }
            _ => self.condition(kind, false, None, None),
        };
        PodCondition { observed_generation: None, ..condition }
    }

    /// `GeneratePodInitializedCondition`.
    fn initialized(&self) -> PodCondition {
        let kind = condition_type::INITIALIZED;
        let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
        for init in self.pod.init_containers() {
            match container_status(self.statuses, &init.name) {
                None => unknown.push(init.name.as_str()),
                Some(status) if !is_initialized(init, status) => incomplete.push(init.name.as_str()),
                Some(_) => {}
            }
        }
        if self.phase == phase::SUCCEEDED && unknown.is_empty() {
            return self.condition(kind, true, Some("PodCompleted"), None);
        }
        let started = |c: &Container| {
            let state = container_status(self.statuses, &c.name).and_then(|s| s.state.as_ref());
            state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        // A main container that started means that all init containers were done, whatever became of their records.
        if self.pod.containers().iter().any(started) {
            return self.condition(kind, true, None, None);
        }
        // A pod that was initialised stays so, also while its containers all start anew.
        let old = self.old.conditions.as_deref().unwrap_or_default();
        if old.iter().any(|c| c.type_ == kind && c.status == "True") {
            return self.condition(kind, true, None, None);
        }
        match unready_message(&unknown, "incomplete", &incomplete) {
            Some(message) => self.condition(kind, false, Some("ContainersNotInitialized"), Some(message)),
            None => self.condition(kind, true, None, None),
        }
    }

    /// `GenerateContainersReadyCondition`.
    fn containers_ready(&self) -> PodCondition {
        let kind = condition_type::CONTAINERS_READY;
        let (mut unknown, mut unready) = (Vec::new(), Vec::new());
        let sidecars = self.pod.init_containers().iter().filter(|c| is_restartable_init_container(c));
        for container in sidecars.chain(self.pod.containers()) {
            match container_status(self.statuses, &container.name) {
                None => unknown.push(container.name.as_str()),
                Some(status) if !status.ready => unready.push(container.name.as_str()),
                Some(_) => {}
            }
        }
        if self.phase == phase::SUCCEEDED && unknown.is_empty() {
            return self.condition(kind, false, Some("PodCompleted"), None);
        }
        if self.phase == phase::FAILED {
            return self.condition(kind, false, Some("PodFailed"), None);
        }
        match unready_message(&unknown, "unready", &unready) {
            Some(message) => self.condition(kind, false, Some("ContainersNotReady"), Some(message)),
            None => self.condition(kind, true, None, None),
        }
    }

    /// `GeneratePodReadyCondition`: the containers, and the pod's own readiness gates.
    fn ready(&self, conditions: &[PodCondition]) -> PodCondition {
        let containers = self.containers_ready();
        if containers.status != "True" {
            return PodCondition { type_: condition_type::READY.to_owned(), ..containers };
        }
        let mut messages = Vec::new();
        for gate in self.pod.pod_spec().readiness_gates.iter().flatten() {
            let name = &gate.condition_type;
            match conditions.iter().find(|c| &c.type_ == name) {
                None => {
                    messages.push(format!(
                        "corresponding condition of pod readiness gate {name:?} does not exist."
                    ));
                }
                Some(c) if c.status != "True" => messages.push(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => {}
            }
        }
        if messages.is_empty() {
            return self.condition(condition_type::READY, true, None, None);
        }
        let message = messages.join(", ");
        self.condition(condition_type::READY, false, Some("ReadinessGatesNotReady"), Some(message))
    }
}

fn is_initialized(container: &Container, status: &ContainerStatus) -> bool {
    if is_restartable_init_container(container) { status.started == Some(true) } else { status.ready }
}

fn unready_message(unknown: &[&str], what: &str, unready: &[&str]) -> Option<String> {
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !unready.is_empty() {
        messages.push(format!("containers with {what} status: [{}]", unready.join(" ")));
    }
    (!messages.is_empty()).then(|| messages.join(", "))
}

#[cfg(test)]
mod tests;
