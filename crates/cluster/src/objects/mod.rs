//! Objects that pods refer to.

mod cache;
mod references;
mod runtime_classes;
mod services;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, ObjectKey, ObjectKind, ObjectReader};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use crate::client::ApiClient;
use crate::node::NodeWatch;
use cache::ObjectCache;
use references::references;
use runtime_classes::RuntimeClasses;
use services::Services;

/// Notices that a receiver may be behind before it lags.
const CHANGES: usize = 1024;

const SWEEP: Duration = Duration::from_secs(60);

/// Reads objects from the apiserver, and keeps current what registered pods refer to. Dropping it ends all watches.
pub struct KubeObjectReader {
    node: Arc<NodeWatch>,
    config_maps: Arc<ObjectCache<ConfigMap>>,
    secrets: Arc<ObjectCache<Secret>>,
    runtime_classes: RuntimeClasses,
    services: Services,
    changes: broadcast::Sender<ObjectKey>,
    /// By pod UID, what was registered.
    pods: Mutex<HashMap<String, BTreeSet<ObjectKey>>>,
    _sweeper: AbortOnDropHandle<()>,
}

impl KubeObjectReader {
    /// A reader. Needs a tokio runtime, for its watches.
    pub fn new(client: Arc<ApiClient>, node: Arc<NodeWatch>) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        let config_maps = ObjectCache::new(Arc::clone(&client), changes.clone());
        let secrets = ObjectCache::new(Arc::clone(&client), changes.clone());
        let sweeper = tokio::spawn(sweep(Arc::clone(&config_maps), Arc::clone(&secrets)));
        Self {
            node,
            config_maps,
            secrets,
            runtime_classes: RuntimeClasses::start(Arc::clone(&client)),
            services: Services::start(client),
            changes,
            pods: Mutex::default(),
            _sweeper: AbortOnDropHandle::new(sweeper),
        }
    }

    fn add(&self, key: &ObjectKey, pod_uid: &str) {
        match key.kind {
            ObjectKind::ConfigMap => self.config_maps.add(key, pod_uid),
            ObjectKind::Secret => self.secrets.add(key, pod_uid),
        }
    }

    fn remove(&self, key: &ObjectKey, pod_uid: &str) {
        match key.kind {
            ObjectKind::ConfigMap => self.config_maps.remove(key, pod_uid),
            ObjectKind::Secret => self.secrets.remove(key, pod_uid),
        }
    }
}

#[async_trait]
impl ObjectReader for KubeObjectReader {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        self.config_maps.get(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        self.secrets.get(namespace, name).await
    }

    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        self.runtime_classes.get(name).await
    }

    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        self.services.of(namespace).await
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.node()
    }

    async fn fetch_node(&self) -> Result<Option<Arc<Node>>, ApiError> {
        self.node.fetch().await
    }

    fn register_pod(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let wanted = references(pod);
        let mut pods = self.pods.lock();
        let before = pods.insert(uid.to_owned(), wanted.clone()).unwrap_or_default();
        wanted.difference(&before).for_each(|key| self.add(key, uid));
        before.difference(&wanted).for_each(|key| self.remove(key, uid));
    }

    fn unregister_pod(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.pods.lock();
        pods.remove(uid).unwrap_or_default().iter().for_each(|key| self.remove(key, uid));
    }

    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.changes.subscribe()
    }
}

async fn sweep(config_maps: Arc<ObjectCache<ConfigMap>>, secrets: Arc<ObjectCache<Secret>>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        config_maps.sweep();
        secrets.sweep();
    }
}
