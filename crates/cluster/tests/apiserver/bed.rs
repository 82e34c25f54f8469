//! A node's client and an administrator's on the control plane that all tests share.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coracle_cluster::{ApiClient, ClientOptions, NodeWatch, connect};
use coracle_core::ports::{EventRecord, EventSink};
use coracle_tests::cluster;
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::scratch::Scratch;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long anything here may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node and a namespace of one test.
pub(crate) struct Bed {
    /// The client of the node.
    pub(crate) client: Arc<ApiClient>,
    /// The client of an administrator.
    pub(crate) admin: Client,
    /// The name of the node, and of the namespace.
    pub(crate) name: String,
    /// The kubeconfig of the node.
    pub(crate) kubeconfig: PathBuf,
    _scratch: Scratch,
}

impl Bed {
    pub(crate) async fn new(test: &str) -> Self {
        let control_plane = tokio::task::spawn_blocking(cluster::control_plane).await.unwrap().unwrap();
        let test = test.to_owned();
        Self::on(control_plane, &test).await
    }

    pub(crate) async fn on(control_plane: &ControlPlane, test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster::namespace(control_plane, &name).unwrap();
        let scratch = Scratch::new(&name).unwrap();
        let kubeconfig = control_plane.node_kubeconfig(&scratch, &name).unwrap();
        let client = connect(&kubeconfig, ClientOptions::default()).await.unwrap();
        let admin = connect(control_plane.admin_kubeconfig(), ClientOptions::default()).await.unwrap();
        Self { client, admin: admin.kube(), name, kubeconfig, _scratch: scratch }
    }

    /// Objects of a kind in the test's namespace, for the administrator.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.admin.clone(), &self.name)
    }

    /// Creates an object in the test's namespace, as the administrator.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + serde::Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Creates a pod that is bound to the node, with this in its spec.
    pub(crate) async fn pod(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": self.name, "containers": [{"name": "c", "image": "i"}]},
        });
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.create(pod).await
    }

    pub(crate) fn node_watch(&self) -> Arc<NodeWatch> {
        NodeWatch::start(Arc::clone(&self.client), &self.name)
    }
}

/// Looks again and again until there is what is looked for.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keeps events.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Mutex<Vec<EventRecord>>);

impl EventSink for Events {
    fn record(&self, event: EventRecord) {
        self.0.lock().push(event);
    }
}

impl Events {
    pub(crate) fn reasons(&self) -> Vec<Cow<'static, str>> {
        self.0.lock().iter().map(|event| event.reason.clone()).collect()
    }
}
