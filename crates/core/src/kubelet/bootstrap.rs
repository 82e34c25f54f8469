//! Starting a kubelet (upstream: the `Bootstrap` interface and `startKubelet` in `cmd/kubelet/app/server.go`).

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::info;

use super::run_once::RunPodResult;
use super::{Kubelet, KubeletOptions};
use crate::config::PodUpdate;
use crate::ports::EventType;
use crate::recorder::reason;

/// What can be started of a kubelet. Every method that runs does so until it is dropped.
#[async_trait]
pub trait Bootstrap: Send + Sync {
    /// What the kubelet was told about how to be.
    fn get_configuration(&self) -> &KubeletOptions;

    /// Says that the kubelet has started.
    fn birth_cry(&self);

    /// Removes what is no longer needed, now and then.
    async fn start_garbage_collection(&self);

    /// Serves the API on 10250; returns at once if there is none.
    async fn listen_and_serve(self: Arc<Self>);

    /// Serves the read-only API; returns at once if there is none.
    async fn listen_and_serve_read_only(self: Arc<Self>);

    /// Serves the pod resources socket; returns at once if there is none.
    async fn listen_and_serve_pod_resources(self: Arc<Self>);

    /// Runs pods until the sources are gone.
    async fn run(self: Arc<Self>, updates: mpsc::Receiver<PodUpdate>);

    /// Runs the pods of the first update to their start, and answers what became of them. They go on, and so does
    /// everything that looks after them, until the answer's guard is dropped.
    async fn run_once(
        self: Arc<Self>,
        updates: mpsc::Receiver<PodUpdate>,
    ) -> (Vec<RunPodResult>, JoinSet<()>);
}

#[async_trait]
impl Bootstrap for Kubelet {
    fn get_configuration(&self) -> &KubeletOptions {
        &self.options
    }

    fn birth_cry(&self) {
        let node = self.node_reference();
        self.recorder.event(node, EventType::Normal, reason::STARTING_KUBELET, "Starting kubelet.");
    }

    async fn start_garbage_collection(&self) {
        tokio::join!(self.run_container_gc(), self.run_image_gc());
    }

    async fn listen_and_serve(self: Arc<Self>) {
        if let Some(server) = self.server.clone() {
            server.serve(self).await;
        }
    }

    async fn listen_and_serve_read_only(self: Arc<Self>) {
        info!("the read-only port is off");
    }

    async fn listen_and_serve_pod_resources(self: Arc<Self>) {
        if let Some(server) = self.pod_resources.clone() {
            server.serve(self).await;
        }
    }

    async fn run(self: Arc<Self>, updates: mpsc::Receiver<PodUpdate>) {
        self.run_until_sources_end(updates).await;
    }

    async fn run_once(
        self: Arc<Self>,
        updates: mpsc::Receiver<PodUpdate>,
    ) -> (Vec<RunPodResult>, JoinSet<()>) {
        self.run_pods_once(updates).await
    }
}

/// Starts everything of a kubelet (`startKubelet`). The tasks end when the set is dropped.
pub fn start_kubelet<K: Bootstrap + 'static>(
    kubelet: &Arc<K>,
    updates: mpsc::Receiver<PodUpdate>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    kubelet.birth_cry();
    tasks.spawn(kubelet.clone().run(updates));
    tasks.spawn(kubelet.clone().listen_and_serve());
    tasks.spawn(kubelet.clone().listen_and_serve_read_only());
    tasks.spawn(kubelet.clone().listen_and_serve_pod_resources());
    let collector = kubelet.clone();
    tasks.spawn(async move { collector.start_garbage_collection().await });
    tasks
}
