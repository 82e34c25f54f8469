//! What this program says that it is.

/// The version of Kubernetes whose kubelet is implemented.
pub(crate) const KUBERNETES: &str = "v1.37.2";

/// `nodeInfo.kubeletVersion`: the contract, and who keeps it.
pub(crate) fn kubelet_version() -> String {
    format!("{KUBERNETES}+coracle.{}", env!("CARGO_PKG_VERSION"))
}
