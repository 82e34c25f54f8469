//! Pods that are given once: what `coracle run` is given.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::defaults::set_pod_defaults;
use super::manifest::ManifestError;
use super::validation::validate_pod;
use crate::pod::PodExt;
use crate::ports::{PodSource, SourceKind, SourceUpdate};

/// A fixed set of pods.
pub struct FixedSource {
    pods: Vec<Arc<Pod>>,
}

impl FixedSource {
    /// These pods, which [`fixed_pod`] made.
    pub fn new(pods: Vec<Arc<Pod>>) -> Self {
        Self { pods }
    }
}

#[async_trait]
impl PodSource for FixedSource {
    /// It stands in for the apiserver: the pods have no mirror there, their status is their own.
    fn kind(&self) -> SourceKind {
        SourceKind::Api
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        // A closed channel means that nobody wants to know.
        let _ = updates.send(SourceUpdate::Set(self.pods.clone())).await;
        updates.closed().await;
    }
}

/// Makes a pod that did not come through the apiserver into what that would have made of it: defaults, validation, a
/// UID, and the node that it is bound to.
pub fn fixed_pod(mut pod: Pod, uid: &str, node_name: &str) -> Result<Arc<Pod>, ManifestError> {
    set_pod_defaults(&mut pod);
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
    }
    pod.status = None;
    validate_pod(&pod).map_err(|message| ManifestError::Invalid { object: pod.display_name(), message })?;
    Ok(Arc::new(pod))
}
