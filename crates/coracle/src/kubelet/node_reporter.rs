//! What the Node object of this node says, at any moment.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_core::kubelet::Kubelet;
use coracle_core::machine::MachineInfo;
use coracle_core::nodestatus::{NodeSettings, NodeState, initial_node};
use coracle_core::ports::NodeStatusSource;
use coracle_core::providers::Providers;
use k8s_openapi::api::core::v1::{Node, NodeRuntimeHandler};
use parking_lot::RwLock;
use tokio::sync::watch;

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

    /// Follows the health of the kubelet's providers, until dropped.
    pub(super) async fn follow(&self, kubelet: Arc<Kubelet>, providers: Providers) {
        self.state.write().runtime_handlers = runtime_handlers(&providers);
        let mut changes = kubelet.node_changed();
        loop {
            let errors = kubelet.runtime_state().errors();
            let news = self.state.read().errors != errors;
            if news {
                self.state.write().errors = errors;
                self.changed.send_replace(());
            }
            if changes.changed().await.is_err() {
                return;
            }
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

fn runtime_handlers(providers: &Providers) -> Vec<NodeRuntimeHandler> {
    let handler =
        |name: &str| NodeRuntimeHandler { name: Some(name.to_owned()), ..NodeRuntimeHandler::default() };
    // Every runtime serves pods without a RuntimeClass, too.
    std::iter::once("").chain(providers.handlers()).map(handler).collect()
}
