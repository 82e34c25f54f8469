//! ConfigMaps and Secrets that were given beside the pods, in place of an apiserver.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, ObjectKey, ObjectReader};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::broadcast;

/// A fixed set of objects.
pub(super) struct GivenObjects {
    config_maps: Vec<Arc<ConfigMap>>,
    secrets: Vec<Arc<Secret>>,
    changes: broadcast::Sender<ObjectKey>,
}

impl GivenObjects {
    pub(super) fn new(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Self {
        Self {
            config_maps: config_maps.into_iter().map(Arc::new).collect(),
            secrets: secrets.into_iter().map(Arc::new).collect(),
            changes: broadcast::channel(1).0,
        }
    }
}

fn find<T>(
    objects: &[Arc<T>],
    metadata: impl Fn(&T) -> &ObjectMeta,
    (kind, namespace, name): (&str, &str, &str),
) -> Result<Arc<T>, ApiError> {
    let is_it = |object: &&Arc<T>| {
        let found = metadata(object);
        let own = found.namespace.as_deref().unwrap_or("default");
        found.name.as_deref() == Some(name) && own == namespace
    };
    objects.iter().find(is_it).cloned().ok_or_else(|| {
        ApiError::NotFound(format!("{kind} {name:?} is not there; add it to the same YAML file"))
    })
}

#[async_trait]
impl ObjectReader for GivenObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        find(&self.config_maps, |object| &object.metadata, ("ConfigMap", namespace, name))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        find(&self.secrets, |object| &object.metadata, ("Secret", namespace, name))
    }

    /// Any name will do: the handler decides whether there is such a runtime.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Ok(Arc::new(RuntimeClass { handler: name.to_owned(), ..RuntimeClass::default() }))
    }

    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }

    fn node(&self) -> Option<Arc<Node>> {
        None
    }

    fn register_pod(&self, _pod: &Pod) {}

    fn unregister_pod(&self, _pod: &Pod) {}

    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.changes.subscribe()
    }
}
