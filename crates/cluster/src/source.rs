//! Pods from the apiserver (upstream: `pkg/kubelet/config/apiserver.go`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{PodSource, SourceKind, SourceUpdate};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::client::ApiClient;
use crate::node::NodeWatch;
use crate::watch::{Change, Watch};

/// The pods that are bound to this node.
pub struct ApiserverSource {
    client: Arc<ApiClient>,
    node: Arc<NodeWatch>,
}

impl ApiserverSource {
    /// The source starts once the node has been looked for at the apiserver, because admission of pods reads its labels.
    pub fn new(client: Arc<ApiClient>, node: Arc<NodeWatch>) -> Self {
        Self { client, node }
    }
}

#[async_trait]
impl PodSource for ApiserverSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Api
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        self.node.synced().await;
        let mut pods = Watch::<Pod>::new(&self.client, None, format!("spec.nodeName={}", self.node.name()));
        loop {
            let change = tokio::select! {
                change = pods.next() => change,
                () = updates.closed() => return,
            };
            if updates.send(update(change)).await.is_err() {
                return;
            }
        }
    }
}

fn update(change: Change<Pod>) -> SourceUpdate {
    match change {
        Change::Set(pods) => SourceUpdate::Set(pods.into_iter().map(kept).collect()),
        Change::Apply(pod) => SourceUpdate::Apply(kept(pod)),
        Change::Delete(pod) => SourceUpdate::Delete(kept(pod)),
    }
}

/// A pod as it stays in memory: nobody here reads who manages which field, and that is half of it.
fn kept(mut pod: Pod) -> Arc<Pod> {
    pod.metadata.managed_fields = None;
    Arc::new(pod)
}
