//! The other objects of the cluster.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, ObjectKey, ObjectReader};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::json;
use tokio::sync::broadcast;

use super::Api;

/// What all pods together may ask for, in thousandths of a processor.
pub(crate) const NODE_CPU: i64 = 3000;

/// The node as the apiserver has it, always.
pub(super) fn node() -> Arc<Node> {
    let node = json!({
        "metadata": {"name": "node", "uid": "node-uid", "labels": {"zone": "a", "kubernetes.io/os": "linux"}},
        "status": {"allocatable": {"cpu": format!("{NODE_CPU}m"), "memory": "4Gi", "pods": "110"}},
    });
    Arc::new(serde_json::from_value(node).unwrap_or_default())
}

#[async_trait]
impl ObjectReader for Api {
    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(ApiError::NotFound(format!("configmaps {name:?} not found")))
    }
    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(ApiError::NotFound(format!("secrets {name:?} not found")))
    }
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        let class = RuntimeClass { handler: name.to_owned(), ..RuntimeClass::default() };
        self.call("", "a RuntimeClass", || Ok(Arc::new(class))).await
    }
    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }
    fn node(&self) -> Option<Arc<Node>> {
        Some(self.node.clone())
    }
    async fn fetch_node(&self) -> Result<Option<Arc<Node>>, ApiError> {
        self.call("", "the Node", || Ok(Some(self.node.clone()))).await
    }
    fn register_pod(&self, _pod: &Pod) {}
    fn unregister_pod(&self, _pod: &Pod) {}
    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.objects.subscribe()
    }
}
