//! Telling runtimes of resources that have changed (upstream: `doPodResizeAction` in `kuberuntime_manager.go`).

use std::collections::HashMap;

use coracle_provider::{ContainerStats, Resources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::compute::{ContainerToUpdate, PodActions, is_pod_resize_in_progress};
use super::manager::KubeGenericRuntimeManager;
use super::resize_cgroup::PodGroup;
use super::runtime_pod::RuntimePod;
use super::sync_result::{PodSyncResult, SyncAction, SyncFailure, reason};
use crate::allocation::{Amounts, effective_limits, resource_info_for_pod};
use crate::pod::PodExt;

/// What is resized, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Memory,
    Cpu,
}

impl KubeGenericRuntimeManager {
    /// A pod that nothing is known of has what its containers run with (`InitializeActuatedPod`).
    pub fn initialize_actuated_pod(&self, pod: &Pod) {
        if self.actuated.knows(&pod.uid()) {
            return;
        }
        if let Err(error) = self.actuated.set_pod(&pod.uid(), resource_info_for_pod(pod)) {
            tracing::error!(pod = %pod.display_name(), %error, "writing down a pod's resources failed");
        }
    }

    /// What the runtimes were told last.
    pub fn actuated(&self) -> &crate::allocation::State {
        &self.actuated
    }

    /// Whether anything of a pod that runs has not got what was allocated to it.
    pub fn is_pod_resize_in_progress(&self, pod: &Pod, runtime: &RuntimePod) -> bool {
        let actuated = self.actuated.pod(&pod.uid()).unwrap_or_default();
        is_pod_resize_in_progress(pod, runtime, &actuated)
    }

    /// Step 6: tells the runtimes of resources that have changed. What fails is tried again by the next sync.
    pub(super) async fn do_pod_resize_action(
        &self,
        pod: &Pod,
        actions: &PodActions,
        result: &mut PodSyncResult,
    ) {
        let nothing = actions.memory_to_update.is_empty() && actions.cpu_to_update.is_empty();
        if actions.kill_pod || (nothing && !actions.update_pod_level_resources) {
            return;
        }
        let resized = self.resize(pod, actions).await;
        let resized = resized.map_err(|message| SyncFailure::new(reason::RESIZE_POD_IN_PLACE, message));
        result.add(SyncAction::ResizePodInPlace, pod.name(), resized);
    }

    async fn resize(&self, pod: &Pod, actions: &PodActions) -> Result<(), String> {
        self.validate_memory_resize(pod, &actions.memory_to_update).await?;
        let group = PodGroup::of(self.container_manager.as_deref(), pod).await?;
        let mut current = HashMap::new();
        let steps = [(Resource::Memory, &actions.memory_to_update), (Resource::Cpu, &actions.cpu_to_update)];
        for (resource, containers) in steps {
            if let Some(group) = &group {
                group.raise(resource).await?;
            }
            for update in containers {
                let current = current.entry(&update.container.id).or_insert(update.current);
                self.update_container(pod, update, resource, current).await?;
            }
            if let Some(group) = &group {
                group.lower(resource).await?;
            }
        }
        match &pod.pod_spec().resources {
            Some(own) if actions.update_pod_level_resources => {
                self.actuated.set_pod_level(&pod.uid(), own.clone()).map_err(|e| e.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Tells a runtime one of a container's resources; the other one stays as it is (`updatePodContainerResources`).
    async fn update_container(
        &self,
        pod: &Pod,
        update: &ContainerToUpdate,
        resource: Resource,
        current: &mut Amounts,
    ) -> Result<(), String> {
        let container = &update.container;
        let provider = self.providers.by_name(container.provider);
        let provider = provider.ok_or_else(|| format!("{} is gone", container.provider))?;
        let desired = update.desired;
        let wanted = match resource {
            Resource::Memory => Amounts {
                memory_limit: desired.memory_limit,
                memory_request: desired.memory_request,
                ..*current
            },
            Resource::Cpu => {
                Amounts { cpu_limit: desired.cpu_limit, cpu_request: desired.cpu_request, ..*current }
            }
        };
        let (provider, id) = (provider.clone(), container.id.clone());
        let update = async move { provider.update_container_resources(&id, to_provider(wanted)).await };
        let updated = self.in_flight.change(container.provider, &pod.uid(), update).await;
        let status = updated.map_err(|error| error.to_string())?;
        self.cache.set_container(container.provider, status);
        *current = wanted;
        self.set_actuated(pod, &container.name, Some(&wanted.to_requirements()))
    }

    /// Writes down what a container runs with from now on (`setActuatedContainerResources`).
    pub(super) fn set_actuated(
        &self,
        pod: &Pod,
        name: &str,
        resources: Option<&ResourceRequirements>,
    ) -> Result<(), String> {
        let limits = effective_limits(pod.pod_spec().resources.as_ref(), resources);
        let resources = ResourceRequirements {
            limits: (!limits.is_empty()).then_some(limits),
            ..resources.cloned().unwrap_or_default()
        };
        self.actuated.set_container(&pod.uid(), name, resources).map_err(|e| e.to_string())
    }

    /// A limit below what is used would end the container: then nothing at all is changed (`validateMemoryResizeAction`).
    async fn validate_memory_resize(&self, pod: &Pod, updates: &[ContainerToUpdate]) -> Result<(), String> {
        let decreasing: Vec<&ContainerToUpdate> = updates.iter().filter(|u| is_decreasing(u)).collect();
        let Some(first) = decreasing.first() else { return Ok(()) };
        let unknown =
            |why: String| format!("unable to read memory usage for pod {:?}: {why}", pod.display_name());
        let name = first.container.provider;
        let provider = self.providers.by_name(name).ok_or_else(|| unknown(format!("{name} is gone")))?;
        let stats = provider.container_stats(Some(&pod.uid())).await.map_err(|e| unknown(e.to_string()))?;
        let errors: Vec<String> =
            decreasing.iter().filter_map(|update| above_limit(update, &stats)).collect();
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }
}

/// Whether a container gets a lower limit, or one where there was none.
fn is_decreasing(update: &ContainerToUpdate) -> bool {
    let (from, to) = (update.current.memory_limit, update.desired.memory_limit);
    to != 0 && (from == 0 || to < from)
}

fn above_limit(update: &ContainerToUpdate, stats: &[ContainerStats]) -> Option<String> {
    let (name, limit) = (&update.container.name, update.desired.memory_limit);
    let Some(found) = stats.iter().find(|s| s.id == update.container.id) else {
        return Some(format!("missing container {name:?} memory usage"));
    };
    let usage = found.memory.usage_bytes;
    (i128::from(usage) >= i128::from(limit)).then(|| {
        format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({usage})")
    })
}

/// What a container is to run with; the pod's limits hold where it has none.
pub(super) fn container_resources(pod: &Pod, container: &Container) -> Resources {
    to_provider(Amounts::of_container(pod.pod_spec().resources.as_ref(), container.resources.as_ref()))
}

fn to_provider(amounts: Amounts) -> Resources {
    let some = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Resources {
        cpu_limit_millis: some(amounts.cpu_limit),
        cpu_request_millis: some(amounts.cpu_request),
        memory_limit_bytes: some(amounts.memory_limit),
        memory_request_bytes: some(amounts.memory_request),
    }
}
