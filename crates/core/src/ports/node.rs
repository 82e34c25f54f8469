//! What the apiserver is told about this node.

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

/// Knows what the Node object of this node should say.
pub trait NodeStatusSource: Send + Sync {
    /// The Node as it would be created now: labels, annotations, taints, provider id and the whole status, its
    /// conditions without times ([`initial_node`](crate::nodestatus::initial_node)).
    fn node(&self) -> Node;

    /// Wakes up when [`node`](Self::node) may give something else that should not wait for the next regular look.
    fn changed(&self) -> watch::Receiver<()>;
}
