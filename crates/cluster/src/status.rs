//! The status of pods (upstream: `pkg/kubelet/status/status_manager.go`, its calls).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, StatusSink, StatusUpdate};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};

use crate::api::{collection, unbuildable};
use crate::client::ApiClient;

/// Nobody reads the pod that a PATCH answers with: its metadata is the least that the server can be asked for.
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json");

/// Writes the status of pods: one PATCH each, and no GET.
pub struct KubeStatusSink {
    client: Arc<ApiClient>,
}

impl KubeStatusSink {
    /// A sink that writes through this client.
    pub fn new(client: Arc<ApiClient>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl StatusSink for KubeStatusSink {
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        let (namespace, name) = place(&update.pod);
        let mut request = collection::<Pod>(namespace)
            .patch_subresource("status", name, &PatchParams::default(), &Patch::Strategic(&update.patch))
            .map_err(unbuildable)?;
        request.headers_mut().insert(ACCEPT, METADATA_ONLY);
        self.client.send(request).await
    }

    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        delete_now(&self.client, pod).await
    }
}

/// Removes the object of a pod without waiting for anything, but not another one of its name.
pub(crate) async fn delete_now(client: &ApiClient, pod: &Pod) -> Result<(), ApiError> {
    let (namespace, name) = place(pod);
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let request = collection::<Pod>(namespace).delete(name, &parameters).map_err(unbuildable)?;
    client.send(request).await
}

fn place(pod: &Pod) -> (Option<&str>, &str) {
    (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref().unwrap_or_default())
}
