//! Objects of one kind that are followed one by one (upstream: `pkg/kubelet/util/manager/watch_based_manager.go`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_core::ports::{ApiError, ObjectKey, ObjectKind};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::api::Object;
use crate::authorizer_race::past_authorizer_race;
use crate::backoff::Backoff;
use crate::client::ApiClient;
use crate::watch::{Change, Watch};

/// How long an object is followed after its last pod: the next pod of a namespace finds `kube-root-ca.crt` in memory.
const KEEP: Duration = Duration::from_secs(300);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A kind that pods refer to.
pub(super) trait Referable: Object {
    const KIND: ObjectKind;

    fn is_immutable(&self) -> bool;
}

impl Referable for ConfigMap {
    const KIND: ObjectKind = ObjectKind::ConfigMap;

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Referable for Secret {
    const KIND: ObjectKind = ObjectKind::Secret;

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// The objects of a kind that pods refer to: one watch each, however many pods.
pub(super) struct ObjectCache<K> {
    client: Arc<ApiClient>,
    changes: broadcast::Sender<ObjectKey>,
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
}

/// What is known of an object; nothing before the first answer.
type Known<K> = Option<Result<Arc<K>, ApiError>>;

struct Entry<K> {
    /// UIDs of the pods that refer to it.
    pods: HashSet<String>,
    unused_since: Instant,
    known: watch::Receiver<Known<K>>,
    _follower: AbortOnDropHandle<()>,
}

impl<K: Referable> ObjectCache<K> {
    pub(super) fn new(client: Arc<ApiClient>, changes: broadcast::Sender<ObjectKey>) -> Arc<Self> {
        Arc::new(Self { client, changes, entries: Mutex::default() })
    }

    /// Follows an object for a pod. Returns at once: only the first reader waits for the first answer.
    pub(super) fn add(self: &Arc<Self>, key: &ObjectKey, pod_uid: &str) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.pods.insert(pod_uid.to_owned());
            return;
        }
        let (sender, known) = watch::channel(None);
        let follower = Follower { cache: Arc::downgrade(self), key: key.clone(), known: sender };
        let task = tokio::spawn(follower.run(Arc::clone(&self.client)));
        let entry = Entry {
            pods: HashSet::from([pod_uid.to_owned()]),
            unused_since: Instant::now(),
            known,
            _follower: AbortOnDropHandle::new(task),
        };
        entries.insert(key.clone(), entry);
    }

    /// A pod does not need an object any more.
    pub(super) fn remove(&self, key: &ObjectKey, pod_uid: &str) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return };
        entry.pods.remove(pod_uid);
        entry.unused_since = Instant::now();
        // Nobody follows an immutable object, and another of the same name may take its place.
        if entry.pods.is_empty() && entry.is_immutable() {
            entries.remove(key);
        }
    }

    /// Forgets what no pod has needed for a while.
    pub(super) fn sweep(&self) {
        self.entries.lock().retain(|_, entry| !entry.pods.is_empty() || entry.unused_since.elapsed() < KEEP);
    }

    /// The object, from memory if it is followed.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, ApiError> {
        let key = ObjectKey { kind: K::KIND, namespace: namespace.to_owned(), name: name.to_owned() };
        let known = self.entries.lock().get(&key).map(|entry| entry.known.clone());
        if let Some(mut known) = known
            && let Ok(known) = known.wait_for(Option::is_some).await
            && let Some(answer) = known.as_ref()
        {
            return answer.clone();
        }
        read(&self.client, &key).await
    }

    fn forget_unless_used(&self, key: &ObjectKey) -> bool {
        let mut entries = self.entries.lock();
        let unused = entries.get(key).is_none_or(|entry| entry.pods.is_empty());
        if unused {
            entries.remove(key);
        }
        unused
    }
}

impl<K: Referable> Entry<K> {
    fn is_immutable(&self) -> bool {
        matches!(&*self.known.borrow(), Some(Ok(object)) if object.is_immutable())
    }
}

/// Keeps what is known of one object current, until its entry is gone.
struct Follower<K> {
    cache: Weak<ObjectCache<K>>,
    key: ObjectKey,
    known: watch::Sender<Known<K>>,
}

impl<K: Referable> Follower<K> {
    async fn run(self, client: Arc<ApiClient>) {
        // A GET first: it is answered from the store at once. A watch that starts from the newest may have to wait
        // 100 ms for the server's cache, and one that starts from anything may be told old news.
        let Some(version) = self.first(&client).await else { return };
        let selector = format!("metadata.name={}", self.key.name);
        let mut watch = Watch::<K>::new(&client, Some(&self.key.namespace), selector).not_older_than(version);
        while !self.is_final() {
            match watch.try_next().await {
                Ok(Change::Set(objects)) => self.learn(objects.into_iter().next()),
                Ok(Change::Apply(object)) => self.learn(Some(object)),
                Ok(Change::Delete(_)) => self.learn(None),
                Err(error) if self.is_forgotten() => return debug!(key = ?self.key, "not followed: {error}"),
                Err(error) => {
                    debug!(key = ?self.key, "watch failed: {error}");
                    watch.pause().await;
                }
            }
        }
    }

    /// Asks until there is an answer. Gives the version to follow from: empty if there is no such object; none if
    /// nobody wants it any more.
    async fn first(&self, client: &ApiClient) -> Option<String> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match read::<K>(client, &self.key).await {
                Ok(object) => {
                    let version = object.meta().resource_version.clone().unwrap_or_default();
                    self.publish(Ok(object));
                    return Some(version);
                }
                Err(error @ ApiError::NotFound(_)) => {
                    self.publish(Err(error));
                    return Some(String::new());
                }
                Err(error) => {
                    self.publish(Err(error));
                    if self.is_forgotten() {
                        return None;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    fn learn(&self, object: Option<K>) {
        self.publish(match object {
            Some(object) => Ok(kept(object)),
            None => {
                // As upstream's managers say it: `configmap "x" not found`.
                let kind = K::kind(&()).to_lowercase();
                Err(ApiError::NotFound(format!("{kind} {:?} not found", self.key.name)))
            }
        });
    }

    fn publish(&self, answer: Result<Arc<K>, ApiError>) {
        let mut changed = false;
        self.known.send_modify(|known| {
            changed = known.as_ref().is_some_and(|known| differs(known, &answer));
            *known = Some(answer);
        });
        if changed && let Some(cache) = self.cache.upgrade() {
            // Without a receiver, nobody wants to know.
            let _ = cache.changes.send(self.key.clone());
        }
    }

    fn is_final(&self) -> bool {
        matches!(&*self.known.borrow(), Some(Ok(object)) if object.is_immutable())
    }

    fn is_forgotten(&self) -> bool {
        // The node authorizer refuses a watch of what no pod of the node refers to.
        self.cache.upgrade().is_none_or(|cache| cache.forget_unless_used(&self.key))
    }
}

async fn read<K: Referable>(client: &ApiClient, key: &ObjectKey) -> Result<Arc<K>, ApiError> {
    past_authorizer_race(|| client.get::<K>(Some(&key.namespace), &key.name)).await.map(kept)
}

fn kept<K: Referable>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}

fn differs<K: Referable>(old: &Result<Arc<K>, ApiError>, new: &Result<Arc<K>, ApiError>) -> bool {
    match (old, new) {
        (Ok(old), Ok(new)) => old.meta().resource_version != new.meta().resource_version,
        (Err(_), Err(_)) => false,
        _ => true,
    }
}
