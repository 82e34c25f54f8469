//! Removing what is no longer needed: dead containers, old sandboxes, logs (upstream: `kuberuntime_gc.go`,
//! `container/container_gc.go`).

mod log_folders;
mod plan;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ContainerState;
use tracing::warn;

use super::runtime_pod::{RuntimeContainer, RuntimePod, RuntimeSandbox};
use crate::blocking::blocking;
use crate::clock;
use crate::logs;
use crate::metrics::runtime_operation;
use crate::pod_cache::PodCache;
use crate::providers::{Providers, RegisteredProvider};
use plan::{dead_containers, evictable_containers, evictable_sandboxes, excess_containers};

/// What a container of which nobody knows whether it runs gets to end in.
const UNKNOWN_CONTAINER_GRACE: Duration = Duration::from_secs(2);

/// When a container ends, so many of its dead instances are kept whatever the policy says (`minDeadContainerInPod`).
const MIN_DEAD_CONTAINERS: usize = 1;

/// Which dead containers are kept, for `kubectl logs --previous` and their restart counts (`GCPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// `--minimum-container-ttl-duration`: younger ones are left alone.
    pub min_age: Duration,
    /// `--maximum-dead-containers-per-container`: so many of each container of a pod; none is no limit.
    pub max_per_pod_container: Option<usize>,
    /// `--maximum-dead-containers`: so many on the node; none is no limit.
    pub max_containers: Option<usize>,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self { min_age: Duration::ZERO, max_per_pod_container: Some(1), max_containers: None }
    }
}

/// Removes what is dead.
#[derive(Clone)]
pub struct ContainerGc {
    pub(super) providers: Providers,
    pub(super) cache: Arc<PodCache>,
    pub(super) policy: GcPolicy,
    /// `podLogsDir`.
    pub(super) pod_logs_dir: PathBuf,
    /// Where log agents find links to logs, if anywhere.
    pub(super) container_logs_dir: Option<PathBuf>,
}

impl ContainerGc {
    /// The same for one provider alone. What others have stays: they are collected by themselves, however long one of them
    /// takes.
    pub fn of(&self, registered: &RegisteredProvider) -> Self {
        Self { providers: Providers::new(vec![registered.clone()]), ..self.clone() }
    }

    /// Whether a pod has anything here.
    pub(crate) fn has_any(&self, pod: &RuntimePod) -> bool {
        let names = pod.sandboxes.iter().map(|s| s.provider).chain(pod.containers.iter().map(|c| c.provider));
        names.into_iter().any(|name| self.providers.by_name(name).is_some())
    }

    /// Removes dead containers and sandboxes that nobody needs any more (`GarbageCollect`). Of a pod whose content may go,
    /// that is all of them. Goes on after failures: the next time may do better.
    pub async fn garbage_collect(&self, content_may_go: impl Fn(&str) -> bool) {
        let pods = self.cache.all();
        for container in evictable_containers(&pods, &self.policy, clock::now(), &content_may_go) {
            self.remove_container(container).await;
        }
        for uid in self.cache.uids() {
            self.remove_sandboxes(&uid, content_may_go(&uid)).await;
        }
    }

    /// Removes the logs of pods whose content may go, and links to logs that are gone.
    pub async fn clean_up_logs(&self, content_may_go: impl Fn(&str) -> bool) {
        self.evict_pod_log_folders(&content_may_go).await;
        self.remove_dead_log_links().await;
    }

    /// Removes instances of containers that ended before those that are kept, however young (`podContainerDeletor`). Else
    /// what crashes every second would leave many until the next round.
    pub async fn delete_containers_in_pod(&self, pod: &RuntimePod) {
        let Some(keep) = self.policy.max_per_pod_container else { return };
        for container in excess_containers(pod, keep.max(MIN_DEAD_CONTAINERS)) {
            self.remove_container(container).await;
        }
    }

    /// Removes everything that is dead of a pod that nobody wants, however young.
    pub async fn garbage_collect_pod(&self, pod: &RuntimePod) {
        if !self.has_any(pod) {
            return;
        }
        for container in dead_containers(pod) {
            self.remove_container(container).await;
        }
        self.remove_sandboxes(&pod.uid, true).await;
        let left = self.cache.get(&pod.uid);
        if left.containers.is_empty() && left.sandboxes.is_empty() {
            self.remove_pod_logs(pod).await;
        }
    }

    /// Removes a dead container, and its logs.
    pub(super) async fn remove_container(&self, container: &RuntimeContainer) {
        if self.remove_container_but_logs(container).await {
            self.remove_container_log(container).await;
        }
    }

    /// Removes a dead container. Says whether it is gone.
    pub(super) async fn remove_container_but_logs(&self, container: &RuntimeContainer) -> bool {
        let Some(provider) = self.providers.by_name(container.provider) else { return false };
        if container.state == ContainerState::Unknown
            && let Err(error) = provider.stop_container(&container.id, UNKNOWN_CONTAINER_GRACE).await
        {
            warn!(%error, container = %container.id, "stopping a container of unknown state failed");
            return false;
        }
        match runtime_operation("remove_container", provider.remove_container(&container.id)).await {
            Ok(revision) => {
                let (name, uid) = (container.provider, &container.pod.uid);
                self.cache.remove_container(name, uid, &container.id, revision);
                true
            }
            Err(error) => {
                warn!(%error, container = %container.id, "removing a dead container failed");
                false
            }
        }
    }

    async fn remove_container_log(&self, container: &RuntimeContainer) {
        let (log, link) = (container.log_path.clone(), self.log_link(container));
        let removed = blocking(move || {
            if let Some(link) = link {
                log_folders::remove_link(&link);
            }
            logs::clean(&log).map_err(std::io::Error::other)
        });
        if let Err(error) = removed.await {
            warn!(%error, container = %container.id, "removing the logs of a container failed");
        }
    }

    async fn remove_sandboxes(&self, uid: &str, content_may_go: bool) {
        let pod = self.cache.get(uid);
        for sandbox in evictable_sandboxes(&pod, content_may_go) {
            self.remove_sandbox(sandbox).await;
        }
    }

    /// It should have been stopped; if it was not, that would leave its network behind.
    async fn remove_sandbox(&self, sandbox: &RuntimeSandbox) {
        let Some(provider) = self.providers.by_name(sandbox.provider) else { return };
        let stop = provider.stop_sandbox(&sandbox.id);
        let removed = match runtime_operation("stop_podsandbox", stop).await {
            Ok(_) => runtime_operation("remove_podsandbox", provider.remove_sandbox(&sandbox.id)).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(revision) => {
                self.cache.remove_sandbox(sandbox.provider, &sandbox.pod.uid, &sandbox.id, revision);
            }
            Err(error) => warn!(%error, sandbox = %sandbox.id, "removing a sandbox failed"),
        }
    }
}
