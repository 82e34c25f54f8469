//! Removing what is no longer needed: dead containers, old sandboxes, logs (upstream: `kuberuntime_gc.go`).

use std::collections::HashMap;
use std::path::Path;

use coracle_provider::{ContainerState, SandboxState};

use super::manager::KubeGenericRuntimeManager;
use super::runtime_pod::{RuntimeContainer, RuntimePod};

/// Dead instances that are kept of each container, for `kubectl logs --previous` and its restart count
/// (`maxPerPodContainer`).
const KEEP_PER_CONTAINER: usize = 1;

impl KubeGenericRuntimeManager {
    /// Removes dead containers and sandboxes that nobody needs any more. Of a pod whose content may go, that is all
    /// of them and its logs. Goes on after failures: the next time may do better.
    pub async fn garbage_collect(&self, content_may_go: impl Fn(&str) -> bool) {
        for uid in self.cache.uids() {
            let pod = self.cache.get(&uid);
            self.garbage_collect_pod(&pod, content_may_go(&uid)).await;
        }
        self.gc_back_off();
    }

    /// The same for one pod.
    pub async fn garbage_collect_pod(&self, pod: &RuntimePod, content_may_go: bool) {
        let keep = if content_may_go { 0 } else { KEEP_PER_CONTAINER };
        for container in dead_containers(pod, keep) {
            self.remove_container(container).await;
        }
        let pod = self.cache.get(&pod.uid);
        let logs = pod.containers.first().and_then(|c| c.log_path.parent()?.parent().map(Path::to_owned));
        for sandbox in pod.sandboxes.iter().skip(usize::from(!content_may_go)) {
            let used = pod.containers.iter().any(|c| c.sandbox_id == sandbox.id);
            if sandbox.state == SandboxState::NotReady && !used {
                self.remove_sandbox(&pod, sandbox.provider, &sandbox.id).await;
            }
        }
        if content_may_go && !pod.is_alive() {
            remove_logs(logs).await;
        }
    }

    pub(super) async fn remove_container(&self, container: &RuntimeContainer) {
        let Some(provider) = self.providers.by_name(container.provider) else { return };
        match provider.remove_container(&container.id).await {
            Ok(revision) => {
                let (name, uid) = (container.provider, &container.pod.uid);
                self.cache.remove_container(name, uid, &container.id, revision);
                self.remove_log_link(container);
            }
            Err(error) => {
                tracing::warn!(%error, container = %container.id, "removing a dead container failed")
            }
        }
    }

    async fn remove_sandbox(&self, pod: &RuntimePod, provider: &'static str, id: &str) {
        let Some(found) = self.providers.by_name(provider) else { return };
        match found.remove_sandbox(id).await {
            Ok(revision) => {
                self.cache.remove_sandbox(provider, &pod.uid, id, revision);
            }
            Err(error) => tracing::warn!(%error, sandbox = id, "removing a sandbox failed"),
        }
    }

    fn remove_log_link(&self, container: &RuntimeContainer) {
        let Some(folder) = &self.options.container_logs_dir else { return };
        let (pod, name) = (&container.pod, &container.name);
        let link =
            folder.join(super::container::legacy_log_name(&pod.name, &pod.namespace, name, &container.id));
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, link = %link.display(), "removing the link to a log failed");
            }
            _ => {}
        }
    }
}

/// Containers that neither run nor are among the newest `keep` dead ones of their name, the oldest first.
fn dead_containers(pod: &RuntimePod, keep: usize) -> Vec<&RuntimeContainer> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut dead = Vec::new();
    for container in &pod.containers {
        if matches!(container.state, ContainerState::Running | ContainerState::Unknown) {
            continue;
        }
        let count = seen.entry(&container.name).or_default();
        *count += 1;
        // The newest instance tells the restart count, running or not: it always stays in a live pod.
        if *count > keep {
            dead.push(container);
        }
    }
    dead.reverse();
    dead
}

async fn remove_logs(folder: Option<std::path::PathBuf>) {
    let Some(folder) = folder else { return };
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "removing the logs of a pod failed");
        }
        _ => {}
    }
}
