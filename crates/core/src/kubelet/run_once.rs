//! Running a fixed set of pods: what `coracle run` does (upstream had `RunOnce` in `runonce.go` until 1.31).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Kubelet, SyncHandler};
use crate::config::PodUpdate;
use crate::pod::{PodExt, phase};
use crate::pod_workers::{KillPodOptions, SyncPodType, UpdatePodOptions};

/// What became of a pod's start.
#[derive(Clone, Debug)]
pub struct RunPodResult {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its status: running, ended, or waiting for a reason that is not going to pass by itself.
    pub status: Arc<PodStatus>,
}

impl Kubelet {
    pub(super) async fn run_pods_once(
        self: &Arc<Self>,
        mut updates: mpsc::Receiver<PodUpdate>,
    ) -> (Vec<RunPodResult>, JoinSet<()>) {
        let (mut tasks, pleg) = self.start_managers();
        self.wait_for_first_relist().await;
        let first = updates.recv().await;
        let pods = first.as_ref().map(|update| update.pods.clone()).unwrap_or_default();
        if let Some(first) = first {
            self.handle_pod_additions(first.pods);
            self.sources_ready.add_source(first.source);
        }
        let (kubelet, channels) = (self.clone(), self.sync_channels(updates, pleg));
        tasks.spawn(async move { kubelet.sync_loop(channels, &*kubelet).await });
        let mut results = Vec::with_capacity(pods.len());
        for pod in pods {
            let status = self.status_manager.wait_for_status(&pod.uid(), has_started_or_failed).await;
            results.push(RunPodResult { pod, status });
        }
        (results, tasks)
    }

    /// Stops pods, each within its own grace period or the given one, and returns when nothing of them runs any more.
    pub async fn kill_pods(&self, which: impl Fn(&Pod) -> bool, grace_period_seconds: Option<i64>) {
        let mut killed = Vec::new();
        for pod in self.pod_manager.pods().into_iter().filter(|pod| which(pod)) {
            let (completed, done) = oneshot::channel();
            let kill = KillPodOptions {
                completed: Some(completed),
                grace_period_seconds_override: grace_period_seconds,
                ..KillPodOptions::default()
            };
            let update = UpdatePodOptions::new(SyncPodType::Kill, pod);
            self.pod_workers.update_pod(UpdatePodOptions { kill: Some(kill), ..update });
            killed.push(done);
        }
        for done in killed {
            // A worker that is gone has nothing left to stop.
            let _ = done.await;
        }
    }
}

fn has_started_or_failed(status: &PodStatus) -> bool {
    let phase = status.phase.as_deref().unwrap_or_default();
    if phase == phase::RUNNING || phase::is_terminal(phase) {
        return true;
    }
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let mut waiting =
        lists.into_iter().flatten().flatten().filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    waiting.any(|w| {
        !matches!(
            w.reason.as_deref(),
            None | Some("ContainerCreating" | "PodInitializing" | "RegistryUnavailable")
        )
    })
}
