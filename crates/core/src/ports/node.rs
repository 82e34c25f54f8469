//! What this node is, and what it uses.

use std::path::Path;

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

use crate::machine::{FileSystem, NodeUsage};

/// Knows what the Node object of this node should say.
pub trait NodeStatusSource: Send + Sync {
    /// The Node as it would be created now: labels, annotations, taints, provider id and the whole status, its
    /// conditions without times ([`initial_node`](crate::nodestatus::initial_node)).
    fn node(&self) -> Node;

    /// Wakes up when [`node`](Self::node) may give something else that should not wait for the next regular look.
    fn changed(&self) -> watch::Receiver<()>;
}

/// Reads what the whole node uses.
pub trait NodeUsageSource: Send + Sync {
    /// What it uses now; or what could not be read, in one line. Reads files of the kernel, which takes no time.
    fn node_usage(&self) -> Result<NodeUsage, String>;

    /// How full the file system is that a folder is on; or why that is not known. May block.
    fn file_system(&self, folder: &Path) -> Result<FileSystem, String>;
}
