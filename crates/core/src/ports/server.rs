//! The kubelet's own API.

use std::sync::Arc;

use async_trait::async_trait;

use crate::host::HostInterface;

/// Serves one of the kubelet's APIs (10250, 10255, the pod resources socket).
#[async_trait]
pub trait ApiServer: Send + Sync {
    /// Serves until dropped; returns only if it cannot serve (any more), after having logged why.
    async fn serve(&self, host: Arc<dyn HostInterface>);
}
