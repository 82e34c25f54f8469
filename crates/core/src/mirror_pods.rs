//! Keeps the API objects of static pods (upstream: `tryReconcileMirrorPods` in `kubelet.go`, `pod/mirror_client.go`).
//!
//! A static pod starts without an apiserver. So that the cluster sees it all the same, its node makes an API object that
//! mirrors it. Calls to the apiserver are made here and not by the pods' workers: no pod waits for them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tracing::{debug, info, warn};

use crate::pod::{CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, PodExt, PodUid};
use crate::pod_manager::{PodManager, is_mirror_pod_of};
use crate::ports::{ApiError, MirrorClient, ObjectReader};
use crate::work_queue::WorkQueue;

/// After a call that failed.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// While this node is not registered, or what is known of it says nothing (`fastStaticPodsRegistration`).
const NODE_PERIOD: Duration = Duration::from_millis(100);

/// The mirror pods of this node.
pub struct MirrorPods {
    /// None without an apiserver: then there are no mirror pods.
    client: Option<Arc<dyn MirrorClient>>,
    pods: Arc<PodManager>,
    objects: Arc<dyn ObjectReader>,
    queue: WorkQueue<Work>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Work {
    /// The mirror of the static pod with this UID should be there and be its own.
    Reconcile(PodUid),
    /// This mirror pod, by UID, mirrors nothing.
    Remove(PodUid),
}

impl MirrorPods {
    /// Mirrors of the pods that `pods` knows. Nothing is done before [`run`](Self::run) runs.
    pub fn new(
        client: Option<Arc<dyn MirrorClient>>,
        pods: Arc<PodManager>,
        objects: Arc<dyn ObjectReader>,
    ) -> Self {
        Self { client, pods, objects, queue: WorkQueue::default() }
    }

    /// Sees to the mirror of a pod soon, if that is a static one.
    pub fn reconcile(&self, pod: &Pod) {
        if pod.is_static() && self.client.is_some() {
            self.queue.enqueue(Work::Reconcile(pod.uid()), Duration::ZERO);
        }
    }

    /// Removes a mirror pod soon, if it still mirrors nothing then.
    pub fn remove_orphan(&self, mirror: &Pod) {
        if self.client.is_some() {
            self.queue.enqueue(Work::Remove(mirror.uid()), Duration::ZERO);
        }
    }

    /// Works until dropped; a call that is under way may still arrive then.
    pub async fn run(self: Arc<Self>) {
        let Some(client) = &self.client else { return std::future::pending().await };
        loop {
            for work in self.queue.due().await {
                if let Some(again) = self.process(&**client, &work).await {
                    self.queue.enqueue(work, again);
                }
            }
        }
    }

    /// Does some work; answers when to do it again, if that is known.
    async fn process(&self, client: &dyn MirrorClient, work: &Work) -> Option<Duration> {
        match work {
            Work::Reconcile(uid) => self.reconcile_mirror(client, &*self.pods.get(uid)?).await,
            Work::Remove(uid) => {
                let orphans = self.pods.orphaned_mirrors();
                let orphan = orphans.iter().find(|mirror| mirror.uid() == *uid)?;
                info!(pod = %orphan.display_name(), %uid, "removing a mirror pod that has no static pod");
                let deleted = client.delete_mirror_pod(orphan).await;
                if deleted.is_ok() {
                    // What it shows is no status of the same pod's next life, which may begin before the watch tells.
                    self.pods.remove(orphan);
                }
                deleted.err().and_then(|error| failed("removing", orphan, &error))
            }
        }
    }

    async fn reconcile_mirror(&self, client: &dyn MirrorClient, pod: &Pod) -> Option<Duration> {
        if let Some(mirror) = self.pods.mirror_of(pod) {
            if !mirror.is_deleting() && is_mirror_pod_of(&mirror, pod) {
                return None;
            }
            info!(pod = %pod.display_name(), uid = %mirror.uid(), "replacing a mirror pod that does not match its static pod");
            if let Some(again) = delete(client, &mirror).await {
                return Some(again);
            }
        }
        let Some(mirror) = self.objects.node().and_then(|node| mirror_pod(pod, &node)) else {
            return Some(NODE_PERIOD);
        };
        create(client, &mirror).await
    }
}

/// Answers when to try again, if that makes sense before the pod is synced the next time.
async fn delete(client: &dyn MirrorClient, mirror: &Pod) -> Option<Duration> {
    client.delete_mirror_pod(mirror).await.err().and_then(|error| failed("removing", mirror, &error))
}

async fn create(client: &dyn MirrorClient, mirror: &Pod) -> Option<Duration> {
    match client.create_mirror_pod(mirror).await {
        Ok(()) => info!(pod = %mirror.display_name(), "created the mirror pod of a static pod"),
        // Nearly always the mirror itself, of which the watch has not told yet. If it is another one, that goes.
        Err(ApiError::Conflict(message)) => {
            debug!(pod = %mirror.display_name(), message, "no mirror pod was created");
            return Some(RETRY_PERIOD);
        }
        Err(error) => return failed("creating", mirror, &error),
    }
    None
}

fn failed(what: &str, mirror: &Pod, error: &ApiError) -> Option<Duration> {
    warn!(pod = %mirror.display_name(), %error, "{what} a mirror pod failed");
    error.is_retryable().then_some(RETRY_PERIOD)
}

/// The object that mirrors a static pod (`CreateMirrorPod`); none while this node is not registered, or is being
/// removed.
fn mirror_pod(pod: &Pod, node: &Node) -> Option<Pod> {
    let node_uid = node.metadata.uid.clone().filter(|uid| !uid.is_empty())?;
    if node.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut mirror = pod.clone();
    let hash = pod.annotation(CONFIG_HASH_ANNOTATION).unwrap_or_default().to_owned();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), hash);
    // The apiserver lets a node make mirror pods only that it owns.
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node_uid,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Some(mirror)
}

#[cfg(test)]
mod tests;
