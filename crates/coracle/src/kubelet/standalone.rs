//! A node without an apiserver. Its pods are static ones, which refer to nothing that only a cluster has
//! (upstream: standalone mode in `cmd/kubelet/app/server.go`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{
    ApiError, EventRecord, EventSink, NodeStatusSource, ObjectKey, ObjectReader, StatusSink, StatusUpdate,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::broadcast;

use super::node_reporter::NodeReporter;

/// Answers in place of an apiserver.
pub(super) struct Standalone {
    reporter: Arc<NodeReporter>,
    changes: broadcast::Sender<ObjectKey>,
}

impl Standalone {
    /// The Node is what would be registered.
    pub(super) fn new(reporter: Arc<NodeReporter>) -> Self {
        Self { reporter, changes: broadcast::channel(1).0 }
    }
}

fn missing(kind: &str, namespace: &str, name: &str) -> ApiError {
    ApiError::Invalid(format!(
        "couldn't get {kind} {namespace}/{name}: this node runs in standalone mode, without --kubeconfig"
    ))
}

#[async_trait]
impl ObjectReader for Standalone {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(missing("configMap", namespace, name))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(missing("secret", namespace, name))
    }

    /// A class is taken for the handler of its name, so that one that is not there is told and not left out.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Ok(Arc::new(RuntimeClass { handler: name.to_owned(), ..RuntimeClass::default() }))
    }

    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }

    fn node(&self) -> Option<Arc<Node>> {
        Some(Arc::new(self.reporter.node()))
    }

    fn register_pod(&self, _pod: &Pod) {}

    fn unregister_pod(&self, _pod: &Pod) {}

    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.changes.subscribe()
    }
}

/// Statuses are kept where the kubelet's own API shows them: without a mirror a static pod has no object to write to.
#[async_trait]
impl StatusSink for Standalone {
    async fn patch_status(&self, _update: &StatusUpdate) -> Result<(), ApiError> {
        Ok(())
    }

    async fn delete_pod(&self, _pod: &Pod) -> Result<(), ApiError> {
        Ok(())
    }
}

impl EventSink for Standalone {
    fn record(&self, event: EventRecord) {
        let EventRecord { object, event_type, reason, message } = event;
        let name = object.name.unwrap_or_default();
        tracing::info!(kind = object.kind, name, event_type = event_type.as_str(), %reason, message, "event");
    }
}
