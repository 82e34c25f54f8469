//! Upstream's tables `Test_allowPodStart` and `TestStaticPodExclusion` of `pod_workers_test.go`.

use std::sync::Weak;

use async_trait::async_trait;
use coracle_provider::PodRef;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::super::{PodSyncStatus, PodWorkersOptions, SyncPodType};
use super::*;
use crate::kuberuntime::RuntimePod;
use crate::pod::CONFIG_SOURCE_ANNOTATION;
use crate::pod_cache::PodCache;
use crate::work_queue::WorkQueue;

fn pod(uid: &str, source: &str) -> Arc<Pod> {
    let metadata = ObjectMeta {
        uid: Some(uid.into()),
        namespace: Some("ns".into()),
        name: Some("foo".into()),
        annotations: Some([(CONFIG_SOURCE_ANNOTATION.to_owned(), source.to_owned())].into()),
        ..ObjectMeta::default()
    };
    Arc::new(Pod { metadata, ..Pod::default() })
}

/// A pod that is known to the workers: its full name is that of all, unless another one is given.
fn known(uid: &str) -> (PodUid, PodSyncStatus) {
    (uid.into(), PodSyncStatus { full_name: "foo_ns".into(), ..PodSyncStatus::default() })
}

fn terminating(uid: &str) -> (PodUid, PodSyncStatus) {
    let (uid, status) = known(uid);
    (uid, PodSyncStatus { termination_requested: true, ..status })
}

fn terminated(uid: &str) -> (PodUid, PodSyncStatus) {
    let (uid, status) = terminating(uid);
    (uid, PodSyncStatus { terminated: true, ..status })
}

fn found_running(uid: &str) -> (PodUid, PodSyncStatus) {
    let (uid, status) = terminating(uid);
    (uid, PodSyncStatus { observed_runtime: true, ..status })
}

fn uids(uids: &[&str]) -> Vec<PodUid> {
    uids.iter().map(|uid| PodUid::from(*uid)).collect()
}

struct Case {
    name: &'static str,
    source: &'static str,
    known: Vec<(PodUid, PodSyncStatus)>,
    started: Option<&'static str>,
    waiting: &'static [&'static str],
    answer: PodStart,
    started_after: Option<&'static str>,
    waiting_after: &'static [&'static str],
}

/// The pod in question is always `uid-0`.
#[test]
fn who_may_start() {
    let plain = |name| Case {
        name,
        source: "file",
        known: vec![known("uid-0"), known("uid-1")],
        started: None,
        waiting: &[],
        answer: PodStart::Now,
        started_after: None,
        waiting_after: &[],
    };
    let cases = [
        Case { source: "api", ..plain("not static") },
        Case {
            source: "api",
            started: Some("uid-1"),
            started_after: Some("uid-1"),
            ..plain("not static, with a static one of the name")
        },
        Case { started_after: Some("uid-0"), ..plain("nobody else") },
        Case {
            started: Some("uid-1"),
            answer: PodStart::Later,
            started_after: Some("uid-1"),
            ..plain("another one has started")
        },
        Case { started: Some("uid-0"), started_after: Some("uid-0"), ..plain("started already") },
        Case { waiting: &["uid-0"], started_after: Some("uid-0"), ..plain("the first of those that wait") },
        Case {
            waiting: &["uid-1", "uid-0"],
            answer: PodStart::Later,
            waiting_after: &["uid-1", "uid-0"],
            ..plain("not the first of those that wait")
        },
        Case {
            waiting: &["uid-2", "uid-2", "uid-3", "uid-0", "uid-1"],
            started_after: Some("uid-0"),
            waiting_after: &["uid-1"],
            ..plain("the first that is still known")
        },
        Case {
            known: vec![known("uid-0"), known("uid-1"), terminating("uid-2"), terminated("uid-3")],
            waiting: &["uid-2", "uid-3", "uid-0", "uid-1"],
            started_after: Some("uid-0"),
            waiting_after: &["uid-1"],
            ..plain("the first that is not to end")
        },
        Case {
            known: vec![known("uid-1"), terminating("uid-2"), terminated("uid-3")],
            waiting: &["uid-1"],
            answer: PodStart::Never,
            waiting_after: &["uid-1"],
            ..plain("not known")
        },
        Case {
            known: vec![terminating("uid-0")],
            waiting: &["uid-2", "uid-3", "uid-0", "uid-1"],
            answer: PodStart::Never,
            waiting_after: &["uid-2", "uid-3", "uid-0", "uid-1"],
            ..plain("to end before it started")
        },
        Case {
            known: vec![found_running("uid-0"), known("uid-1")],
            started: Some("uid-1"),
            started_after: Some("uid-1"),
            ..plain("to end, and found running")
        },
    ];
    for case in cases {
        let name = "foo_ns".to_owned();
        let mut inner = Inner { statuses: case.known.into_iter().collect(), ..Inner::default() };
        inner.started_static.extend(case.started.map(|uid| (name.clone(), uid.into())));
        if !case.waiting.is_empty() {
            inner.waiting_static.insert(name.clone(), uids(case.waiting));
        }
        let update = UpdatePodOptions::new(SyncPodType::Update, pod("uid-0", case.source));
        assert_eq!(inner.allow_pod_start(&update), case.answer, "{}", case.name);
        assert_eq!(inner.started_static.get(&name).map(|uid| &**uid), case.started_after, "{}", case.name);
        let waiting = inner.waiting_static.get(&name).cloned().unwrap_or_default();
        assert_eq!(waiting, uids(case.waiting_after), "{}", case.name);
    }
}

/// Keeps who was synced; whatever it is asked for works.
#[derive(Default)]
struct FakeSyncer {
    synced: Mutex<Vec<String>>,
}

#[async_trait]
impl PodSyncer for FakeSyncer {
    async fn runtime_pod(&self, pod: &Pod) -> Result<RuntimePod, SyncError> {
        Ok(RuntimePod::empty(pod.uid()))
    }
    async fn sync_pod(&self, _: SyncPodType, pod: &Arc<Pod>) -> Result<bool, SyncError> {
        self.synced.lock().push(pod.uid().to_string());
        Ok(false)
    }
    async fn sync_terminating_pod(
        &self,
        _: &Arc<Pod>,
        _: RuntimePod,
        _: Option<i64>,
        _: Option<PodStatusFn>,
    ) -> Result<(), SyncError> {
        Ok(())
    }
    async fn sync_terminating_runtime_pod(&self, _: &PodRef) -> Result<(), SyncError> {
        Ok(())
    }
    async fn sync_terminated_pod(&self, _: &Arc<Pod>, _: RuntimePod) -> Result<(), SyncError> {
        Ok(())
    }
    fn sync_abandoned(&self, _: &PodUid) {}
}

#[tokio::test(start_paused = true)]
async fn static_pods_of_a_name_run_one_after_the_other() {
    let syncer = Arc::new(FakeSyncer::default());
    let weak: Weak<dyn PodSyncer> = Arc::downgrade(&(syncer.clone() as Arc<dyn PodSyncer>));
    let queue = Arc::new(WorkQueue::default());
    let workers = PodWorkers::new(weak, Arc::new(PodCache::default()), queue, PodWorkersOptions::default());
    let workers = Arc::new(workers);
    let tell = |uid: &str, update_type| {
        let source = if uid.ends_with("static") { "file" } else { "api" };
        workers.update_pod(UpdatePodOptions::new(update_type, pod(uid, source)));
    };
    let soon = || sleep(Duration::from_millis(1));
    let started = || workers.inner.lock().started_static.get("foo_ns").map(PodUid::to_string);
    let waiting = || workers.inner.lock().waiting_static.get("foo_ns").cloned().unwrap_or_default();

    for uid in ["1-normal", "2-static", "3-static", "4-static"] {
        tell(uid, SyncPodType::Update);
        soon().await;
    }
    assert_eq!(*syncer.synced.lock(), ["1-normal", "2-static"]);
    assert_eq!(started().as_deref(), Some("2-static"));
    assert_eq!(waiting(), uids(&["3-static", "4-static"]));
    assert!(!workers.is_static_pod_terminating("foo_ns"));

    tell("3-static", SyncPodType::Update);
    soon().await;
    assert_eq!(started().as_deref(), Some("2-static"));
    tell("3-static", SyncPodType::Kill);
    soon().await;
    assert!(workers.is_pod_known_terminated("3-static"), "it never started");
    assert_eq!(started().as_deref(), Some("2-static"));

    tell("2-static", SyncPodType::Kill);
    assert!(workers.is_static_pod_terminating("foo_ns"));
    soon().await;
    assert!(workers.is_pod_known_terminated("2-static"));
    assert!(!workers.is_static_pod_terminating("foo_ns"));
    assert_eq!(started().as_deref(), Some("4-static"), "at once");
    assert!(waiting().is_empty());
    assert_eq!(*syncer.synced.lock(), ["1-normal", "2-static", "4-static"]);
}
