//! Upstream's tables of `mirror_client_test.go`, and of `TestCreateMirrorPod` and its neighbours in `kubelet_test.go`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

use super::*;
use crate::pod::CONFIG_SOURCE_ANNOTATION;
use crate::ports::ObjectKey;

/// Calls are kept as `create NAME` and `delete UID`.
#[derive(Default)]
struct FakeClient {
    calls: Mutex<Vec<String>>,
    errors: Mutex<Vec<ApiError>>,
}

impl FakeClient {
    fn call(&self, call: String) -> Result<(), ApiError> {
        self.calls.lock().push(call);
        self.errors.lock().pop().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl MirrorClient for FakeClient {
    async fn create_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        self.call(format!("create {}", mirror.name()))
    }
    async fn delete_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        self.call(format!("delete {}", mirror.uid()))
    }
}

#[derive(Default)]
struct FakeObjects {
    node: Mutex<Option<Arc<Node>>>,
}

#[async_trait]
impl ObjectReader for FakeObjects {
    async fn config_map(&self, _namespace: &str, _name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(ApiError::NotFound("none here".into()))
    }
    async fn secret(&self, _namespace: &str, _name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(ApiError::NotFound("none here".into()))
    }
    async fn runtime_class(&self, _name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Err(ApiError::NotFound("none here".into()))
    }
    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }
    fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().clone()
    }
    fn register_pod(&self, _pod: &Pod) {}
    fn unregister_pod(&self, _pod: &Pod) {}
    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        broadcast::channel(1).1
    }
}

fn node() -> Node {
    let metadata =
        ObjectMeta { name: Some("node-1".into()), uid: Some("node-uid".into()), ..ObjectMeta::default() };
    Node { metadata, ..Node::default() }
}

fn pod(uid: &str, annotations: &[(&str, &str)]) -> Pod {
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let metadata = ObjectMeta {
        uid: Some(uid.into()),
        namespace: Some("ns".into()),
        name: Some("web".into()),
        annotations: Some(annotations.collect()),
        ..ObjectMeta::default()
    };
    Pod { metadata, ..Pod::default() }
}

fn static_pod(uid: &str) -> Pod {
    pod(uid, &[(CONFIG_SOURCE_ANNOTATION, "file"), (CONFIG_HASH_ANNOTATION, uid)])
}

fn mirror(uid: &str, hash: &str) -> Pod {
    pod(
        uid,
        &[
            (CONFIG_SOURCE_ANNOTATION, "api"),
            (CONFIG_HASH_ANNOTATION, hash),
            (CONFIG_MIRROR_ANNOTATION, hash),
        ],
    )
}

struct Bed {
    client: Arc<FakeClient>,
    objects: Arc<FakeObjects>,
    pods: Arc<PodManager>,
    mirrors: Arc<MirrorPods>,
    _run: tokio::task::JoinSet<()>,
}

impl Bed {
    fn start(pods: &[Pod]) -> Self {
        let (client, objects) = (Arc::new(FakeClient::default()), Arc::new(FakeObjects::default()));
        *objects.node.lock() = Some(Arc::new(node()));
        let manager = Arc::new(PodManager::default());
        pods.iter().for_each(|pod| manager.upsert(Arc::new(pod.clone())));
        let mirrors = MirrorPods::new(Some(client.clone()), manager.clone(), objects.clone());
        let mirrors = Arc::new(mirrors);
        let mut run = tokio::task::JoinSet::new();
        run.spawn(mirrors.clone().run());
        Self { client, objects, pods: manager, mirrors, _run: run }
    }

    /// What it calls within a time.
    async fn calls_within(&self, time: Duration) -> Vec<String> {
        sleep(time).await;
        std::mem::take(&mut *self.client.calls.lock())
    }

    async fn calls(&self) -> Vec<String> {
        self.calls_within(Duration::from_millis(10)).await
    }
}

#[test]
fn a_mirror_is_the_nodes_own() {
    let made = mirror_pod(&static_pod("s"), &node()).unwrap();
    assert_eq!(made.annotation(CONFIG_MIRROR_ANNOTATION), Some("s"));
    assert!(is_mirror_pod_of(&made, &static_pod("s")));
    let owners = made.metadata.owner_references.unwrap();
    assert_eq!((owners.len(), owners[0].kind.as_str(), owners[0].name.as_str()), (1, "Node", "node-1"));
    assert_eq!((owners[0].uid.as_str(), owners[0].controller), ("node-uid", Some(true)));
    assert_eq!(owners[0].block_owner_deletion, None);
}

#[test]
fn a_node_that_is_not_there_has_no_mirrors() {
    let mut unregistered = node();
    unregistered.metadata.uid = None;
    assert!(mirror_pod(&static_pod("s"), &unregistered).is_none());
    let mut leaving = node();
    leaving.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(mirror_pod(&static_pod("s"), &leaving).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_made_and_what_is_right_stays() {
    let bed = Bed::start(&[static_pod("s")]);
    bed.mirrors.reconcile(&static_pod("s"));
    assert_eq!(bed.calls().await, ["create web"]);
    bed.pods.upsert(Arc::new(mirror("m", "s")));
    bed.mirrors.reconcile(&static_pod("s"));
    assert!(bed.calls().await.is_empty());
    bed.mirrors.reconcile(&pod("a", &[(CONFIG_SOURCE_ANNOTATION, "api")]));
    bed.mirrors.reconcile(&static_pod("unknown"));
    assert!(bed.calls_within(Duration::from_secs(60)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outdated_or_deleted_mirror_is_replaced() {
    let mut deleted = mirror("deleted", "s");
    deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    for (old, call) in [(mirror("outdated", "other"), "delete outdated"), (deleted, "delete deleted")] {
        let bed = Bed::start(&[static_pod("s"), old]);
        bed.mirrors.reconcile(&static_pod("s"));
        assert_eq!(bed.calls().await, [call, "create web"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_goes_unless_it_is_none_any_more() {
    let bed = Bed::start(&[mirror("m", "s")]);
    bed.mirrors.remove_orphan(&mirror("m", "s"));
    assert_eq!(bed.calls().await, ["delete m"]);
    bed.pods.upsert(Arc::new(static_pod("s")));
    bed.mirrors.remove_orphan(&mirror("m", "s"));
    assert!(bed.calls_within(Duration::from_secs(60)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_tried_again() {
    let bed = Bed::start(&[static_pod("s")]);
    for passing in [ApiError::Unavailable("down".into()), ApiError::Conflict("there is one".into())] {
        bed.client.errors.lock().push(passing);
        bed.mirrors.reconcile(&static_pod("s"));
        assert_eq!(bed.calls_within(RETRY_PERIOD * 3).await, ["create web", "create web"]);
    }
    bed.client.errors.lock().push(ApiError::Forbidden("no".into()));
    bed.mirrors.reconcile(&static_pod("s"));
    assert_eq!(bed.calls_within(RETRY_PERIOD * 3).await, ["create web"]);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_waits_for_its_node() {
    let bed = Bed::start(&[static_pod("s")]);
    *bed.objects.node.lock() = None;
    let start = Instant::now();
    bed.mirrors.reconcile(&static_pod("s"));
    assert!(bed.calls_within(Duration::from_secs(5)).await.is_empty());
    *bed.objects.node.lock() = Some(Arc::new(node()));
    assert_eq!(bed.calls_within(NODE_PERIOD * 2).await, ["create web"]);
    assert!(start.elapsed() < Duration::from_secs(6));
}
