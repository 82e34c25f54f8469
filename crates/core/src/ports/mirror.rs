//! Mirror pods: the API objects of static pods.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use super::ApiError;

/// Makes and removes mirror pods (upstream: `pkg/kubelet/pod/mirror_client.go`, its calls).
#[async_trait]
pub trait MirrorClient: Send + Sync {
    /// Creates this object. `Conflict` means that there is one of its name.
    async fn create_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError>;

    /// Removes this object at once, its UID as precondition. Gone already is success.
    async fn delete_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError>;
}
