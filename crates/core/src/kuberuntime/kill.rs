//! Stopping containers and pods (upstream: `killContainer`, `killPodWithSyncResult`).

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::Provider;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::time::Instant;

use super::compute::{ContainerToKill, KillReason};
use super::labels;
use super::manager::KubeGenericRuntimeManager;
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use super::sync_result::{PodSyncResult, SyncAction, SyncFailure, reason};
use super::termination_order::TerminationOrder;
use crate::lifecycle::HookTarget;
use crate::metrics::runtime_operation;
use crate::pod::{PodExt, container_reference};
use crate::ports::EventType;
use crate::recorder;

/// Every container gets this much, so that none is killed without having been asked (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How a container is to end, beside why.
#[derive(Clone, Copy, Default)]
struct Terms<'a> {
    /// Seconds that replace what pod and probes say.
    grace_period_override: Option<i64>,
    /// Whom it has to let go first.
    order: Option<&'a TerminationOrder>,
}

impl KubeGenericRuntimeManager {
    /// Stops all containers of a pod at once, each in its turn, then its sandboxes (`killPodWithSyncResult`). `causes`
    /// are the containers that are the reason for it, if any. Without an object of the pod, its containers' annotations
    /// say what is needed.
    pub async fn kill_pod(
        &self,
        pod: Option<&Pod>,
        runtime: &RuntimePod,
        causes: &[ContainerToKill],
        grace_period_seconds: Option<i64>,
    ) -> PodSyncResult {
        let mut result = PodSyncResult::default();
        let running: Vec<&RuntimeContainer> = runtime.running_containers().collect();
        let names: Vec<&str> = running.iter().map(|c| c.name.as_str()).collect();
        let order = pod.map(|pod| TerminationOrder::new(pod, &names));
        let terms = Terms { grace_period_override: grace_period_seconds, order: order.as_ref() };
        let kills = running.iter().map(|container| {
            let cause = causes.iter().find(|cause| cause.container.id == container.id);
            let kill = cause.cloned().unwrap_or_else(|| ContainerToKill {
                container: (*container).clone(),
                message: format!("Stopping container {}", container.name),
                reason: KillReason::PodEnds,
            });
            async move { self.kill_on_terms(pod, runtime, &kill, terms).await }
        });
        for (container, killed) in running.iter().zip(join_all(kills).await) {
            result.add(SyncAction::KillContainer, &container.name, killed);
        }
        if !result.failed() {
            self.stop_sandboxes(runtime, &mut result).await;
        }
        result
    }

    /// Stops one container (`killContainer`): its hook, then itself, all within the grace period.
    pub(super) async fn kill_container(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        kill: &ContainerToKill,
    ) -> Result<(), SyncFailure> {
        self.kill_on_terms(Some(pod), runtime, kill, Terms::default()).await
    }

    /// The same within so many seconds, whatever the pod says.
    pub(super) async fn kill_container_within(
        &self,
        pod: &Pod,
        runtime: &RuntimePod,
        kill: &ContainerToKill,
        seconds: i64,
    ) -> Result<(), SyncFailure> {
        let terms = Terms { grace_period_override: Some(seconds), order: None };
        self.kill_on_terms(Some(pod), runtime, kill, terms).await
    }

    async fn kill_on_terms(
        &self,
        pod: Option<&Pod>,
        runtime: &RuntimePod,
        kill: &ContainerToKill,
        terms: Terms<'_>,
    ) -> Result<(), SyncFailure> {
        let container = &kill.container;
        let Some(provider) = self.providers.by_name(container.provider) else {
            return Err(SyncFailure::new(reason::KILL_CONTAINER, format!("{} is gone", container.provider)));
        };
        let Specs { pod, container: spec } = Specs::find(pod, container);
        let (event_type, why) = (EventType::Normal, recorder::reason::KILLING_CONTAINER);
        self.recorder.container(&pod, &container.name, event_type, why, kill.message.as_str());

        let own = || termination_grace_period(&pod, &spec, kill.reason);
        let seconds = u64::try_from(terms.grace_period_override.unwrap_or_else(own)).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(seconds);
        if seconds > 0 {
            self.run_pre_stop_hook(&pod, &spec, runtime, container, provider, deadline).await;
            if let Some(order) = terms.order {
                order.wait_for_turn(&container.name, deadline).await;
            }
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        self.stop_container(&**provider, container, remaining.max(MINIMUM_GRACE_PERIOD)).await?;
        self.pre_stop_hooks.forget(&container.id);
        if let Some(order) = terms.order {
            order.container_terminated(&container.name);
        }
        Ok(())
    }

    async fn run_pre_stop_hook(
        &self,
        pod: &Pod,
        spec: &Container,
        runtime: &RuntimePod,
        container: &RuntimeContainer,
        provider: &Arc<dyn Provider>,
        deadline: Instant,
    ) {
        let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.clone()) else { return };
        let target = self.hook_target(pod, spec, runtime, &container.id, provider);
        let (handlers, recorder) = (self.handlers.clone(), self.recorder.clone());
        let object = container_reference(pod, &container.name);
        let run = async move {
            if let Err(error) = handlers.run(&target, &hook).await {
                // The message may have secrets of the program, which Events would show to everyone who may read them.
                tracing::debug!(error, "preStop hook failed");
                let why = recorder::reason::FAILED_PRE_STOP_HOOK;
                recorder.event(object, EventType::Warning, why, "PreStopHook failed");
            }
        };
        self.pre_stop_hooks.run(&container.id, &container.pod.uid, deadline, run).await;
    }

    /// The container that a hook is run in.
    pub(super) fn hook_target(
        &self,
        pod: &Pod,
        spec: &Container,
        runtime: &RuntimePod,
        container_id: &str,
        provider: &Arc<dyn Provider>,
    ) -> HookTarget {
        let own = runtime.ips().first().copied();
        // Some providers give the sandbox of such a pod no address.
        let node = self.options.node_ips.first().copied().filter(|_| pod.is_host_network());
        HookTarget {
            pod: format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid()),
            pod_reference: pod.object_reference(),
            container: spec.clone(),
            container_id: container_id.to_owned(),
            provider: provider.clone(),
            pod_ip: own.or(node).map(|ip| ip.to_string()),
        }
    }

    async fn stop_container(
        &self,
        provider: &dyn Provider,
        container: &RuntimeContainer,
        grace: Duration,
    ) -> Result<(), SyncFailure> {
        match runtime_operation("stop_container", provider.stop_container(&container.id, grace)).await {
            Ok(status) => {
                self.cache.set_container(container.provider, status);
                Ok(())
            }
            Err(error) => {
                self.cache.mark_stale(container.provider, &container.pod.uid.as_str().into());
                if error.is_not_found() {
                    return Ok(());
                }
                Err(SyncFailure::new(reason::KILL_CONTAINER, error.to_string()))
            }
        }
    }

    async fn stop_sandboxes(&self, runtime: &RuntimePod, result: &mut PodSyncResult) {
        for sandbox in &runtime.sandboxes {
            let Some(provider) = self.providers.by_name(sandbox.provider) else { continue };
            let stop = provider.stop_sandbox(&sandbox.id);
            let stopped = match runtime_operation("stop_podsandbox", stop).await {
                Ok(status) => {
                    self.cache.set_sandbox(sandbox.provider, status);
                    Ok(())
                }
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(SyncFailure::new(reason::KILL_POD_SANDBOX, error.to_string())),
            };
            if stopped.is_err() {
                self.cache.mark_stale(sandbox.provider, &runtime.uid);
            }
            result.add(SyncAction::KillPodSandbox, &sandbox.pod.uid, stopped);
        }
    }
}

/// What is known of a container and its pod: from the pod's object, or from what was written down when the container
/// was made (`restoreSpecsFromContainerLabels`).
struct Specs<'a> {
    pod: std::borrow::Cow<'a, Pod>,
    container: Container,
}

impl<'a> Specs<'a> {
    fn find(pod: Option<&'a Pod>, container: &RuntimeContainer) -> Self {
        use std::borrow::Cow::{Borrowed, Owned};
        let (restored_pod, restored) = labels::restore_specs(container);
        let Some(pod) = pod else { return Self { pod: Owned(restored_pod), container: restored } };
        let found = pod.all_containers().into_iter().find(|c| c.name == container.name);
        Self { pod: Borrowed(pod), container: found.unwrap_or(restored) }
    }
}

/// In seconds, for a container that is killed for this reason (`setTerminationGracePeriod`).
fn termination_grace_period(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let of_probe = |probe: &Option<Probe>| probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
    let of_pod = pod.pod_spec().termination_grace_period_seconds;
    let own = match reason {
        KillReason::StartupProbe => of_probe(&container.startup_probe),
        KillReason::LivenessProbe => of_probe(&container.liveness_probe),
        _ => None,
    };
    // The minimum is what everyone gets.
    own.or(of_pod).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_grace_period_depends_on_the_reason() {
        use KillReason::{
            DefinitionChanged, FailedPostStartHook, LivenessProbe, PodEnds, StartupProbe, Unknown,
        };
        let all = [Unknown, DefinitionChanged, StartupProbe, LivenessProbe, FailedPostStartHook, PodEnds];
        // Of the deletion, of the pod, of the startup probe, of the liveness probe; and what follows for each reason.
        let cases = [
            ((None, None, None, None), [0; 6]),
            ((None, Some(60), None, None), [60; 6]),
            ((None, Some(60), Some(10), Some(20)), [60, 60, 10, 20, 60, 60]),
            ((None, Some(5), Some(10), Some(20)), [5, 5, 10, 20, 5, 5]),
            ((Some(30), Some(60), Some(10), Some(20)), [30; 6]),
            ((Some(0), Some(60), Some(10), Some(20)), [0; 6]),
        ];
        for ((deletion, of_pod, startup, liveness), expected) in cases {
            let probe = |seconds: Option<i64>| json!({"terminationGracePeriodSeconds": seconds});
            let container: Value =
                json!({"name": "c", "startupProbe": probe(startup), "livenessProbe": probe(liveness)});
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"deletionGracePeriodSeconds": deletion},
                "spec": {"terminationGracePeriodSeconds": of_pod, "containers": [container]},
            }))
            .unwrap();
            let actual = all.map(|reason| termination_grace_period(&pod, &pod.containers()[0], reason));
            assert_eq!(actual, expected, "{deletion:?} {of_pod:?} {startup:?} {liveness:?}");
        }
    }
}
