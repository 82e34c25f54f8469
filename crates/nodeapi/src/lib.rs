//! What programs on the node ask the kubelet, over Unix sockets below its root folder (upstream:
//! `ListenAndServePodResources`).
//!
//! Nobody is asked who they are: the socket's folder is open to root alone, as upstream has it.

mod bindings;
mod limiter;
mod pod_resources;
mod socket;

pub use bindings::{podresources_v1, podresources_v1alpha1};
pub use pod_resources::PodResourcesServer;
pub use socket::SocketError;
