//! Mirror pods (upstream: `pkg/kubelet/pod/mirror_client.go`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, MirrorClient};
use k8s_openapi::api::core::v1::Pod;

use crate::client::ApiClient;
use crate::status::delete_now;

/// Makes and removes mirror pods. A node may, as long as it is their owner (the admission plug-in NodeRestriction).
pub struct KubeMirrorClient {
    client: Arc<ApiClient>,
}

impl KubeMirrorClient {
    /// One that works through this client.
    pub fn new(client: Arc<ApiClient>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl MirrorClient for KubeMirrorClient {
    async fn create_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        self.client.create(mirror.metadata.namespace.as_deref(), mirror).await.map(drop)
    }

    async fn delete_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        match delete_now(&self.client, mirror).await {
            // If it is there after all, it is soon removed again.
            Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
            answer => answer,
        }
    }
}
