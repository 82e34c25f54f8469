//! Pods from manifests that are read once: what `coracle run` is given.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::defaults::set_pod_defaults;
use super::manifest::ManifestError;
use super::validation::validate_pod;
use crate::pod::{CONFIG_HASH_ANNOTATION, CONFIG_SOURCE_ANNOTATION, PodExt};
use crate::ports::{PodSource, SourceKind, SourceUpdate};

/// A fixed set of pods.
pub struct StaticSource {
    pods: Vec<Arc<Pod>>,
}

impl StaticSource {
    /// These pods, which [`static_pod`] made.
    pub fn new(pods: Vec<Arc<Pod>>) -> Self {
        Self { pods }
    }
}

#[async_trait]
impl PodSource for StaticSource {
    fn kind(&self) -> SourceKind {
        SourceKind::File
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        // A closed channel means that nobody wants to know.
        let _ = updates.send(SourceUpdate::Set(self.pods.clone())).await;
        updates.closed().await;
    }
}

/// Makes a pod that did not come through the apiserver into what that would have made of it: defaults, validation,
/// a UID, and the annotations that name its source (upstream: `applyDefaults` in `config/common.go`).
pub fn static_pod(mut pod: Pod, uid: &str, node_name: &str) -> Result<Arc<Pod>, ManifestError> {
    set_pod_defaults(&mut pod);
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE_ANNOTATION.to_owned(), SourceKind::File.as_str().to_owned());
    annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), uid.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
    }
    pod.status = None;
    validate_pod(&pod).map_err(|message| ManifestError::Invalid { object: pod.display_name(), message })?;
    Ok(Arc::new(pod))
}
