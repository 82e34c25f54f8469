//! The steps of a sync (upstream: `kubeGenericRuntimeManager.SyncPod`).
//!
//! What needs nothing of each other runs at once: volumes, the sandbox, and the images of the containers that this
//! sync starts. Upstream does one after the other.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ContainerState;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::compute::{
    ComputeInput, ContainerToKill, ContainerToReset, KillReason, PodActions, compute_pod_actions,
};
use super::container::Sandbox;
use super::manager::KubeGenericRuntimeManager;
use super::restart::restarts_all_containers;
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use super::sync_result::{PodSyncResult, SyncAction, SyncFailure, reason};
use crate::metrics;
use crate::pod::{PodExt, ephemeral_containers, is_restartable_init_container};
use crate::ports::EventType;
use crate::recorder;

/// A container to start, and what kind it is.
struct StartSpec {
    container: Container,
    /// If it cannot be started, nothing after it is.
    required_by_rest: bool,
    is_sidecar: bool,
}

impl KubeGenericRuntimeManager {
    /// Brings the containers of a pod to what its spec says. Every step's outcome is in the answer and, as far as it
    /// concerns containers, in the pod cache.
    ///
    /// With `restart_all_containers` the containers are only removed; the next sync starts them.
    pub async fn sync_pod(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        restart_all_containers: bool,
    ) -> PodSyncResult {
        let mut result = PodSyncResult::default();
        if restart_all_containers {
            let actions = self.compute(pod, runtime, true);
            if self.back_off_restart_all(pod, runtime, &mut result)
                && self.kill_unwanted(pod, runtime, &actions, &mut result).await
            {
                self.reset_containers(pod, runtime, &actions, &mut result).await;
            }
            return result;
        }
        let mut more = self.sync_once(pod, runtime, &mut result).await;
        // What waited for a sidecar need not wait for another sync.
        while more {
            let runtime = self.cache.get(&pod.uid());
            more = self.sync_once(pod, &runtime, &mut result).await;
        }
        result
    }

    /// Goes through the steps once. Answers whether a sidecar was started and all is well: then there may be more to do.
    async fn sync_once(&self, pod: &Arc<Pod>, runtime: &RuntimePod, result: &mut PodSyncResult) -> bool {
        let actions = self.compute(pod, runtime, false);
        if !self.kill_unwanted(pod, runtime, &actions, result).await {
            return false;
        }
        self.prune_init_containers(pod, runtime, actions.create_sandbox).await;

        self.do_pod_resize_action(pod, &actions, result).await;
        let starts = start_specs(pod, &actions);
        if starts.is_empty() && !actions.create_sandbox {
            // Tokens expire and configMaps change while nothing is to be started.
            self.mount_volumes(pod, result).await;
            return false;
        }
        let (mounted, sandbox, images) = tokio::join!(
            self.volumes.mount(pod),
            self.sandbox(pod, runtime, &actions),
            self.ensure_images(pod, runtime, &starts),
        );
        let mounted = self.report_mount(pod, mounted);
        let mounted = result.add(SyncAction::MountVolumes, pod.name(), mounted);
        let sandbox = match sandbox {
            Ok(sandbox) => Some(sandbox),
            Err(failure) => {
                result.add(SyncAction::CreatePodSandbox, pod.name(), Err(failure));
                None
            }
        };
        for (start, image) in starts.iter().zip(images) {
            let name = &start.container.name;
            let started = match (image, &sandbox) {
                (Err(failure), _) => Err(failure),
                (Ok(image), Some(sandbox)) if mounted => {
                    self.note_restart(pod, &start.container, runtime);
                    let started = self.start_container(pod, &start.container, sandbox, image, runtime).await;
                    count_start(pod, name, started.as_ref().err());
                    started
                }
                // What stands in the way has been reported already.
                (Ok(_), _) => continue,
            };
            if !result.add(SyncAction::StartContainer, name, started) && start.required_by_rest {
                break;
            }
        }
        !result.failed() && starts.iter().any(|start| start.is_sidecar)
    }

    fn compute(&self, pod: &Pod, runtime: &RuntimePod, restart_all_containers: bool) -> PodActions {
        let actuated = self.actuated.pod(&pod.uid()).unwrap_or_default();
        let probes = &*self.probes;
        let actuated = &actuated;
        compute_pod_actions(&ComputeInput { pod, runtime, probes, actuated, restart_all_containers })
    }

    /// A container that keeps restarting its whole pod waits as one that crashes. Says whether to go on. Upstream
    /// restarts everything at once, each time: it forgets the end of what it removes.
    fn back_off_restart_all(&self, pod: &Pod, runtime: &RuntimePod, result: &mut PodSyncResult) -> bool {
        let is_source = |container: &&Container| {
            let ended = runtime.find(&container.name).filter(|c| c.state == ContainerState::Exited);
            ended.is_some_and(|c| restarts_all_containers(container, c.exit_code))
        };
        let sources = pod.init_containers().iter().chain(pod.containers()).filter(is_source);
        let sources: Vec<&Container> = sources.collect();
        for source in &sources {
            if let Err(failure) = self.do_back_off(pod, source, runtime) {
                return result.add(SyncAction::StartContainer, &source.name, Err(failure));
            }
        }
        for source in sources {
            self.note_restart(pod, source, runtime);
        }
        true
    }

    /// Removes containers so that all of them start anew. Their logs stay.
    async fn reset_containers(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        actions: &PodActions,
        result: &mut PodSyncResult,
    ) {
        for reset in &actions.containers_to_reset {
            let removed = self.reset_container(pod, runtime, reset).await;
            if !result.add(SyncAction::RemoveContainer, &reset.container.name, removed) {
                return;
            }
        }
    }

    async fn reset_container(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        reset: &ContainerToReset,
    ) -> Result<(), SyncFailure> {
        let container = &reset.container;
        if reset.kill {
            let message = format!("Stopping container {}", container.name);
            let reason = KillReason::RestartAllContainers;
            let kill = ContainerToKill { container: container.clone(), message, reason };
            self.kill_container_within(pod, runtime, &kill, 0).await?;
        }
        let gone = self.container_gc.remove_container_but_logs(container).await;
        let failed =
            || SyncFailure::new(reason::REMOVE_CONTAINER, format!("{} could not be removed", container.id));
        gone.then_some(()).ok_or_else(failed)
    }

    /// Steps 2 and 3: stops what must not run. Says whether to go on.
    async fn kill_unwanted(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        actions: &PodActions,
        result: &mut PodSyncResult,
    ) -> bool {
        if actions.create_sandbox && actions.sandbox_id.is_some() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.recorder.normal(pod, recorder::reason::SANDBOX_CHANGED, message);
        }
        if actions.kill_pod {
            result.extend(self.kill_pod(Some(pod), runtime, &actions.containers_to_kill, None).await);
            return !result.failed();
        }
        for kill in &actions.containers_to_kill {
            let killed = self.kill_container(pod, runtime, kill).await;
            if !result.add(SyncAction::KillContainer, &kill.container.name, killed) {
                return false;
            }
        }
        true
    }

    /// Keeps the last instance of each init container; with a new sandbox, none (`pruneInitContainersBeforeStart`,
    /// `purgeInitContainers`).
    async fn prune_init_containers(&self, pod: &Pod, runtime: &RuntimePod, all: bool) {
        for init in pod.init_containers() {
            let instances = runtime.containers.iter().filter(|c| c.name == init.name);
            for old in instances.filter(|c| all || is_dead(c)).skip(usize::from(!all)) {
                self.container_gc.remove_container(old).await;
            }
        }
    }

    async fn mount_volumes(&self, pod: &Arc<Pod>, result: &mut PodSyncResult) {
        let mounted = self.volumes.mount(pod).await;
        if let Err(failure) = self.report_mount(pod, mounted) {
            result.add(SyncAction::MountVolumes, pod.name(), Err(failure));
        }
    }

    fn report_mount(
        &self,
        pod: &Pod,
        mounted: Result<(), crate::ports::VolumeError>,
    ) -> Result<(), SyncFailure> {
        mounted.map_err(|error| {
            self.recorder.warning(pod, recorder::reason::FAILED_MOUNT_VOLUME, error.to_string());
            SyncFailure::new(reason::MOUNT_VOLUME, format!("Unable to attach or mount volumes: {error}"))
        })
    }

    /// Step 4: the sandbox that there is, or a new one.
    async fn sandbox(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        actions: &PodActions,
    ) -> Result<Sandbox, SyncFailure> {
        if !actions.create_sandbox
            && let Some(active) = runtime.active_sandbox()
            && let Some(provider) = self.providers.by_name(active.provider)
        {
            return Ok(Sandbox { provider: provider.clone(), status: active.status.clone() });
        }
        let (provider, status) = self.create_pod_sandbox(pod, actions.attempt).await?;
        Ok(Sandbox { provider, status })
    }

    /// Images of the containers to start, at once; a container that is backing off needs none.
    async fn ensure_images(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        starts: &[StartSpec],
    ) -> Vec<Result<String, SyncFailure>> {
        let (provider, handler) = match self.provider_for(pod).await {
            Ok(found) => found,
            // The sandbox fails for the same reason and says so.
            Err(error) => {
                let failure = SyncFailure::new(reason::CREATE_POD_SANDBOX, error.to_string());
                return starts.iter().map(|_| Err(failure.clone())).collect();
            }
        };
        let ensure = |start: &'_ StartSpec| {
            let (container, provider, handler) = (start.container.clone(), provider.clone(), handler.clone());
            async move {
                self.do_back_off(pod, &container, runtime)?;
                self.images.ensure_image_exists(&provider, &handler, pod, &container).await
            }
        };
        join_all(starts.iter().map(ensure)).await
    }

    /// Whether a container that failed has to wait (`doBackOff`).
    fn do_back_off(&self, pod: &Pod, container: &Container, runtime: &RuntimePod) -> Result<(), SyncFailure> {
        let Some(finished_at) = last_exit(runtime, &container.name) else { return Ok(()) };
        let key = back_off_key(pod, container);
        let Some(until) = self.crash_loop_back_off.waits_until(&key, finished_at) else { return Ok(()) };
        let message =
            format!("Back-off restarting failed container {} in pod {}", container.name, pod_desc(pod));
        let event = (EventType::Warning, recorder::reason::BACK_OFF);
        self.recorder.container(pod, &container.name, event.0, event.1, message);
        let back_off = Duration::try_from(self.crash_loop_back_off.get(&key)).unwrap_or_default();
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(back_off),
            container.name,
            pod_desc(pod)
        );
        Err(SyncFailure { reason: reason::CRASH_LOOP_BACK_OFF, message, retry_at: Some(until) })
    }

    /// A container that ended before is started again: the next time it waits longer.
    fn note_restart(&self, pod: &Pod, container: &Container, runtime: &RuntimePod) {
        if let Some(finished_at) = last_exit(runtime, &container.name) {
            self.crash_loop_back_off.next(&back_off_key(pod, container), finished_at);
        }
    }
}

fn start_specs(pod: &Pod, actions: &PodActions) -> Vec<StartSpec> {
    let ephemeral = ephemeral_containers(pod);
    let ephemeral = actions.ephemeral_containers_to_start.iter().filter_map(|i| ephemeral.get(*i));
    let init = actions.init_containers_to_start.iter().filter_map(|i| pod.init_containers().get(*i));
    let main = actions.containers_to_start.iter().filter_map(|i| pod.containers().get(*i));
    let optional = |container: &Container| StartSpec {
        container: container.clone(),
        required_by_rest: false,
        is_sidecar: false,
    };
    let init = init.map(|container| {
        let is_sidecar = is_restartable_init_container(container);
        StartSpec { container: container.clone(), required_by_rest: !is_sidecar, is_sidecar }
    });
    ephemeral.map(optional).chain(init).chain(main.map(optional)).collect()
}

/// Counts that a container was to be started, and why it could not.
fn count_start(pod: &Pod, name: &str, failure: Option<&SyncFailure>) {
    let is_init = pod.init_containers().iter().any(|c| c.name == name);
    let is_main = pod.containers().iter().any(|c| c.name == name);
    let kind = match (is_init, is_main) {
        (true, _) => "init_container",
        (_, true) => "container",
        _ => "ephemeral_container",
    };
    metrics::STARTED_CONTAINERS.with_label_values(&[kind]).inc();
    if let Some(failure) = failure {
        metrics::STARTED_CONTAINERS_ERRORS.with_label_values(&[failure.reason, kind]).inc();
    }
}

/// `GetBackoffKey`: a container with another image begins anew.
fn back_off_key(pod: &Pod, container: &Container) -> String {
    format!("{}_{}_{}", pod.uid(), container.name, super::hash_container(container))
}

fn is_dead(container: &RuntimeContainer) -> bool {
    use coracle_provider::ContainerState::{Exited, Unknown};
    matches!(container.state, Exited | Unknown)
}

/// When the newest dead instance of a container ended.
fn last_exit(runtime: &RuntimePod, name: &str) -> Option<Timestamp> {
    let dead = |c: &&RuntimeContainer| c.name == name && c.state == coracle_provider::ContainerState::Exited;
    runtime.containers.iter().find(dead).and_then(|c| c.finished_at)
}

/// `name_namespace(uid)`, as upstream's `format.Pod` writes a pod into messages.
fn pod_desc(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// A duration in whole seconds as Go prints it: `40s`, `2m40s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}
