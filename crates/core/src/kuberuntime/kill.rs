//! Stopping containers and pods (upstream: `killContainer`, `killPodWithSyncResult`).

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::manager::KubeGenericRuntimeManager;
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use super::sync_result::{PodSyncResult, SyncAction, SyncFailure, reason};
use crate::pod::{PodExt, is_restartable_init_container};
use crate::ports::EventType;
use crate::recorder;

/// Every container gets this much, so that none is killed without having been asked (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE_PERIOD: Duration = Duration::from_secs(2);

impl KubeGenericRuntimeManager {
    /// Stops all containers of a pod, then its sandboxes (`killPodWithSyncResult`). Sidecars stop last, the first one
    /// at the very end. Without an object of the pod, the grace period has to be given.
    pub async fn kill_pod(
        &self,
        pod: Option<&Pod>,
        runtime: &RuntimePod,
        grace_period_seconds: Option<i64>,
    ) -> PodSyncResult {
        let mut result = PodSyncResult::default();
        let deadline = Instant::now() + grace_period(pod, grace_period_seconds);
        let running: Vec<&RuntimeContainer> = runtime.running_containers().collect();
        let sidecars: Vec<&Container> = pod
            .into_iter()
            .flat_map(|p| p.init_containers())
            .filter(|c| is_restartable_init_container(c))
            .collect();
        let is_sidecar = |c: &RuntimeContainer| sidecars.iter().any(|s| s.name == c.name);

        let main = running.iter().filter(|c| !is_sidecar(c));
        let kills = main.map(|c| self.kill_until(pod, c, deadline));
        for (container, killed) in running.iter().filter(|c| !is_sidecar(c)).zip(join_all(kills).await) {
            result.add(SyncAction::KillContainer, &container.name, killed);
        }
        for sidecar in sidecars.iter().rev() {
            for container in running.iter().filter(|c| c.name == sidecar.name) {
                let killed = self.kill_until(pod, container, deadline).await;
                result.add(SyncAction::KillContainer, &container.name, killed);
            }
        }
        if !result.failed() {
            self.stop_sandboxes(runtime, &mut result).await;
        }
        result
    }

    async fn kill_until(
        &self,
        pod: Option<&Pod>,
        container: &RuntimeContainer,
        deadline: Instant,
    ) -> Result<(), SyncFailure> {
        let grace = deadline.saturating_duration_since(Instant::now());
        self.kill_container(pod, container, &format!("Stopping container {}", container.name), grace).await
    }

    /// Stops one container, at the latest after `grace` (`killContainer`).
    pub(super) async fn kill_container(
        &self,
        pod: Option<&Pod>,
        container: &RuntimeContainer,
        message: &str,
        grace: Duration,
    ) -> Result<(), SyncFailure> {
        let Some(provider) = self.providers.by_name(container.provider) else {
            return Err(SyncFailure::new(reason::KILL_CONTAINER, format!("{} is gone", container.provider)));
        };
        if let Some(pod) = pod {
            let (event_type, reason) = (EventType::Normal, recorder::reason::KILLING_CONTAINER);
            self.recorder.container(pod, &container.name, event_type, reason, message);
        }
        match provider.stop_container(&container.id, grace.max(MINIMUM_GRACE_PERIOD)).await {
            Ok(status) => {
                self.cache.set_container(container.provider, status);
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                self.cache.mark_stale(&container.pod.uid.as_str().into());
                Ok(())
            }
            Err(error) => {
                self.cache.mark_stale(&container.pod.uid.as_str().into());
                Err(SyncFailure::new(reason::KILL_CONTAINER, error.to_string()))
            }
        }
    }

    async fn stop_sandboxes(&self, runtime: &RuntimePod, result: &mut PodSyncResult) {
        for sandbox in &runtime.sandboxes {
            let Some(provider) = self.providers.by_name(sandbox.provider) else { continue };
            let stopped = match provider.stop_sandbox(&sandbox.id).await {
                Ok(status) => {
                    self.cache.set_sandbox(sandbox.provider, status);
                    Ok(())
                }
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(SyncFailure::new(reason::KILL_POD_SANDBOX, error.to_string())),
            };
            if stopped.is_err() {
                self.cache.mark_stale(&runtime.uid);
            }
            result.add(SyncAction::KillPodSandbox, &sandbox.pod.uid, stopped);
        }
    }
}

/// What was asked for, else what the pod says, else the minimum.
fn grace_period(pod: Option<&Pod>, asked: Option<i64>) -> Duration {
    let own = pod.and_then(|p| {
        p.metadata.deletion_grace_period_seconds.or(p.pod_spec().termination_grace_period_seconds)
    });
    let seconds = asked.or(own).and_then(|s| u64::try_from(s).ok());
    seconds.map_or(MINIMUM_GRACE_PERIOD, Duration::from_secs)
}
