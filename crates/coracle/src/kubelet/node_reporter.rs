//! What the Node object of this node says, at any moment.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::kubelet::Kubelet;
use coracle_core::machine::MachineInfo;
use coracle_core::nodestatus::{NodeSettings, NodeState, initial_node};
use coracle_core::ports::NodeStatusSource;
use coracle_core::providers::Providers;
use coracle_provider::Image;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeRuntimeHandler};
use parking_lot::RwLock;
use tokio::sync::watch;

/// How often images are listed (`imageManager.Start`).
const IMAGE_LIST_PERIOD: Duration = Duration::from_secs(30);

/// Reports this node. It exists before the kubelet does: the node is registered first, and becomes ready later.
pub(super) struct NodeReporter {
    settings: NodeSettings,
    machine: MachineInfo,
    state: RwLock<NodeState>,
    changed: watch::Sender<()>,
}

impl NodeReporter {
    /// A node that is not ready yet.
    pub(super) fn new(settings: NodeSettings, machine: MachineInfo, addresses: Vec<IpAddr>) -> Arc<Self> {
        let errors = vec!["the kubelet is starting".to_owned()];
        let state = RwLock::new(NodeState { addresses, errors, ..NodeState::default() });
        Arc::new(Self { settings, machine, state, changed: watch::Sender::new(()) })
    }

    /// Follows the health of the kubelet's providers and their images, until dropped.
    pub(super) async fn follow(&self, kubelet: Arc<Kubelet>, providers: Providers) {
        self.state.write().runtime_handlers = runtime_handlers(&providers);
        tokio::join!(self.follow_health(&kubelet), self.follow_images(&providers));
    }

    async fn follow_health(&self, kubelet: &Kubelet) {
        let mut changes = kubelet.node_changed();
        loop {
            let (errors, pressure) = (kubelet.runtime_state().errors(), kubelet.pressure());
            let news = {
                let state = self.state.read();
                let shown = (state.memory_pressure, state.disk_pressure, state.pid_pressure);
                state.errors != errors || shown != (pressure.memory, pressure.disk, pressure.pid)
            };
            if news {
                let mut state = self.state.write();
                state.errors = errors;
                state.memory_pressure = pressure.memory;
                state.disk_pressure = pressure.disk;
                state.pid_pressure = pressure.pid;
                drop(state);
                self.changed.send_replace(());
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// New ones are told with the next regular look: nobody waits for them. Of a provider that does not answer, those are
    /// shown that it had.
    async fn follow_images(&self, providers: &Providers) {
        let mut period = tokio::time::interval(IMAGE_LIST_PERIOD);
        let mut listed = BTreeMap::new();
        loop {
            period.tick().await;
            for registered in providers.iter() {
                let provider = registered.provider.name();
                let list = registered.provider.list_images();
                match tokio::time::timeout(IMAGE_LIST_PERIOD, list).await {
                    Ok(Ok(images)) => _ = listed.insert(provider, images),
                    Ok(Err(error)) => {
                        tracing::warn!(provider, %error, "listing images for the node's status failed");
                    }
                    Err(_) => tracing::warn!(provider, "listing images for the node's status takes too long"),
                }
            }
            self.state.write().images = container_images(listed.values().flatten().cloned().collect());
        }
    }
}

impl NodeStatusSource for NodeReporter {
    fn node(&self) -> Node {
        initial_node(&self.settings, &self.machine, &self.state.read())
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The largest first (`nodestatus.Images`, `sliceutils.ByImageSize`).
fn container_images(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| Reverse((a.size_bytes, &a.id)).cmp(&Reverse((b.size_bytes, &b.id))));
    let shown = |image: Image| ContainerImage {
        names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
        size_bytes: Some(i64::try_from(image.size_bytes).unwrap_or(i64::MAX)),
    };
    images.into_iter().map(shown).collect()
}

fn runtime_handlers(providers: &Providers) -> Vec<NodeRuntimeHandler> {
    let handler =
        |name: &str| NodeRuntimeHandler { name: Some(name.to_owned()), ..NodeRuntimeHandler::default() };
    // Every runtime serves pods without a RuntimeClass, too.
    std::iter::once("").chain(providers.handlers()).map(handler).collect()
}
