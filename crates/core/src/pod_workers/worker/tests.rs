//! Upstream's tables `TestUpdatePod`, `TestCompleteWork_Enqueue`, `Test_calculateEffectiveGracePeriod`,
//! `Test_removeTerminatedWorker` and `TestUpdatePodDoesNotForgetSyncPodKill` of `pod_workers_test.go`.

use std::sync::Weak;

use async_trait::async_trait;
use coracle_provider::PodRef;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::super::{KillPodOptions, PodSyncStatus, PodWorkersOptions, SyncPodType};
use super::*;
use crate::kuberuntime::RuntimePod;
use crate::pod_cache::PodCache;
use crate::work_queue::WorkQueue;

const UID: &str = "1";

fn pod(change: serde_json::Value) -> Arc<Pod> {
    let mut pod = json!({"metadata": {"uid": UID, "name": "running-pod", "namespace": "ns"},
        "spec": {"containers": [], "terminationGracePeriodSeconds": 30}, "status": {"phase": "Pending"}});
    for (part, fields) in change.as_object().unwrap() {
        for (name, value) in fields.as_object().unwrap() {
            pod[part][name] = value.clone();
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn plain() -> Arc<Pod> {
    pod(json!({}))
}

fn deleted(grace: i64) -> Arc<Pod> {
    pod(
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}}),
    )
}

fn orphan(update_type: SyncPodType) -> UpdatePodOptions {
    let orphan = PodRef { uid: UID.into(), name: "orphaned-pod".into(), namespace: "ns".into() };
    let kill = KillPodOptions { grace_period_seconds_override: Some(1), ..KillPodOptions::default() };
    UpdatePodOptions { update_type, subject: Subject::RunningPod(orphan), kill: Some(kill) }
}

/// Keeps what it is asked for. Syncs of running pods take as long as they are told to.
#[derive(Default)]
struct FakeSyncer {
    calls: Mutex<Vec<String>>,
    delay: Mutex<Duration>,
    error: Mutex<Option<SyncError>>,
}

impl FakeSyncer {
    async fn call(&self, call: String) -> Result<(), SyncError> {
        self.calls.lock().push(call);
        let (delay, error) = (*self.delay.lock(), self.error.lock().clone());
        sleep(delay).await;
        error.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl PodSyncer for FakeSyncer {
    async fn runtime_pod(&self, pod: &Pod) -> Result<RuntimePod, SyncError> {
        Ok(RuntimePod::empty(pod.uid()))
    }
    async fn sync_pod(&self, why: SyncPodType, _: &Arc<Pod>) -> Result<bool, SyncError> {
        self.call(format!("sync {why:?}")).await.map(|()| false)
    }
    async fn sync_terminating_pod(
        &self,
        _: &Arc<Pod>,
        _: RuntimePod,
        grace: Option<i64>,
        _: Option<PodStatusFn>,
    ) -> Result<(), SyncError> {
        self.call(format!("terminating {}", grace.unwrap())).await
    }
    async fn sync_terminating_runtime_pod(&self, _: &PodRef) -> Result<(), SyncError> {
        self.call("terminating orphan".to_owned()).await
    }
    async fn sync_terminated_pod(&self, _: &Arc<Pod>, _: RuntimePod) -> Result<(), SyncError> {
        self.call("terminated".to_owned()).await
    }
    fn sync_abandoned(&self, _: &PodUid) {
        self.calls.lock().push("abandoned".to_owned());
    }
}

struct Rig {
    workers: Arc<PodWorkers>,
    syncer: Arc<FakeSyncer>,
    queue: Arc<WorkQueue>,
}

impl Rig {
    fn new() -> Self {
        let syncer = Arc::new(FakeSyncer::default());
        let weak: Weak<dyn PodSyncer> = Arc::downgrade(&(syncer.clone() as Arc<dyn PodSyncer>));
        let queue = Arc::new(WorkQueue::default());
        let options = PodWorkersOptions::default();
        let workers = PodWorkers::new(weak, Arc::new(PodCache::default()), queue.clone(), options);
        Self { workers: Arc::new(workers), syncer, queue }
    }

    async fn tell(&self, update: UpdatePodOptions) {
        self.workers.update_pod(update);
        sleep(Duration::from_millis(1)).await;
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.syncer.calls.lock())
    }

    fn status<T>(&self, read: impl FnOnce(Option<&PodSyncStatus>) -> T) -> T {
        self.workers.status(UID, read)
    }
}

fn update(update_type: SyncPodType, pod: Arc<Pod>) -> UpdatePodOptions {
    UpdatePodOptions::new(update_type, pod)
}

#[tokio::test(start_paused = true)]
async fn update_pod() {
    use SyncPodType::{Create, Kill, Update};
    let evict = || {
        let kill = KillPodOptions { evict: true, ..KillPodOptions::default() };
        UpdatePodOptions { kill: Some(kill), ..update(Kill, plain()) }
    };
    let ended = || pod(json!({"status": {"phase": "Succeeded"}}));
    /// What it is told, what is called, and whether the pod is known to have ended.
    type Case = (&'static str, Vec<UpdatePodOptions>, &'static [&'static str], bool);
    let cases: Vec<Case> = vec![
        ("a new pod is recorded and started", vec![update(Create, plain())], &["sync Create"], false),
        (
            "a running pod is terminated when an update contains a deletionTimestamp",
            vec![update(Create, plain()), update(Update, deleted(15))],
            &["sync Create", "terminating 15", "terminated"],
            true,
        ),
        (
            "a running pod is terminated when an eviction is requested",
            vec![update(Create, plain()), evict()],
            &["sync Create", "terminating 30", "terminated"],
            true,
        ),
        (
            "a pod that is terminal and has never started advances to finished if the runtime has a cached terminal state",
            vec![update(Create, ended())],
            &["terminated"],
            true,
        ),
        (
            "an orphaned running pod we have not seen is marked terminating and advances to finished and then is removed",
            vec![orphan(Kill)],
            &["terminating orphan"],
            false,
        ),
        (
            "what is found running of a pod that is known is the pod's own",
            vec![update(Create, plain()), orphan(Kill)],
            &["sync Create", "terminating 1", "terminated"],
            true,
        ),
        (
            "updates after the end do nothing",
            vec![update(Create, plain()), update(Kill, plain()), update(Update, plain()), orphan(Kill)],
            &["sync Create", "terminating 30", "terminated"],
            true,
        ),
    ];
    for (name, updates, expected, known_terminated) in cases {
        let rig = Rig::new();
        for update in updates {
            rig.tell(update).await;
        }
        assert_eq!(rig.calls(), expected, "{name}");
        assert_eq!(rig.workers.is_pod_known_terminated(UID), known_terminated, "{name}");
        let finished = rig.status(|status| status.map(|status| (status.finished, status.evicted)));
        let is_orphan = expected == ["terminating orphan"];
        let evicted = name.contains("eviction");
        assert_eq!(finished, (!is_orphan).then_some((known_terminated, evicted)), "{name}");
    }
}

/// "a new pod is recorded and started unless it is a duplicate of an existing terminating pod UID".
#[tokio::test(start_paused = true)]
async fn a_uid_that_comes_back_waits_for_the_end_of_its_first_life() {
    let rig = Rig::new();
    rig.tell(update(SyncPodType::Create, plain())).await;
    *rig.syncer.delay.lock() = Duration::from_secs(5);
    rig.tell(update(SyncPodType::Kill, plain())).await;
    rig.tell(update(SyncPodType::Create, plain())).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(rig.calls(), ["sync Create", "terminating 30", "terminated"]);
    assert!(rig.status(|status| status.is_some_and(|s| s.restart_requested && s.finished)));
    // Housekeeping forgets it, so that it can begin anew.
    assert!(rig.workers.sync_known_pods(&[plain()]).is_empty());
    *rig.syncer.delay.lock() = Duration::ZERO;
    rig.tell(update(SyncPodType::Create, plain())).await;
    assert_eq!(rig.calls(), ["sync Create"]);
}

#[tokio::test(start_paused = true)]
async fn the_latest_update_wins_and_an_end_is_never_forgotten() {
    let rig = Rig::new();
    *rig.syncer.delay.lock() = Duration::from_secs(1);
    rig.tell(update(SyncPodType::Create, plain())).await;
    for why in [SyncPodType::Sync, SyncPodType::Update] {
        rig.tell(update(why, plain())).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.calls(), ["sync Create", "sync Update"], "one slot");

    rig.tell(update(SyncPodType::Sync, plain())).await;
    rig.tell(update(SyncPodType::Kill, plain())).await;
    rig.tell(update(SyncPodType::Update, plain())).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.calls(), ["sync Sync", "abandoned", "terminating 30", "terminated"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_begins_the_kill_anew_and_a_longer_one_is_none() {
    let rig = Rig::new();
    rig.tell(update(SyncPodType::Create, plain())).await;
    *rig.syncer.delay.lock() = Duration::from_secs(5);
    rig.tell(update(SyncPodType::Update, deleted(15))).await;
    rig.tell(update(SyncPodType::Update, deleted(60))).await;
    rig.tell(update(SyncPodType::Update, deleted(2))).await;
    rig.tell(update(SyncPodType::Update, deleted(0))).await;
    sleep(Duration::from_secs(30)).await;
    let expected =
        ["sync Create", "terminating 15", "abandoned", "terminating 2", "abandoned", "terminating 1"];
    assert_eq!(rig.calls()[..6], expected);
    assert!(rig.workers.is_pod_known_terminated(UID));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_is_told_when_nothing_runs_any_more() {
    let rig = Rig::new();
    rig.tell(update(SyncPodType::Create, plain())).await;
    *rig.syncer.delay.lock() = Duration::from_secs(5);
    let (completed, done) = oneshot::channel();
    let kill = KillPodOptions { completed: Some(completed), ..KillPodOptions::default() };
    let killed = Instant::now();
    rig.workers.update_pod(UpdatePodOptions { kill: Some(kill), ..update(SyncPodType::Kill, plain()) });
    done.await.unwrap();
    assert_eq!(killed.elapsed().as_secs(), 5, "after the kill, and before what it held is given back");
    // Nothing is left to wait for.
    let (completed, done) = oneshot::channel();
    let kill = KillPodOptions { completed: Some(completed), ..KillPodOptions::default() };
    rig.workers.update_pod(UpdatePodOptions { kill: Some(kill), ..update(SyncPodType::Kill, plain()) });
    assert!(tokio::time::timeout(Duration::from_millis(1), done).await.is_ok());
}

/// When a pod is looked at again: the least and the most of the wait, in seconds.
#[tokio::test(start_paused = true)]
async fn complete_work_enqueues() {
    fn back_off(seconds: i64) -> SyncError {
        let retry_at = Some(clock::now() + SignedDuration::from_secs(seconds));
        SyncError::Failed { message: "no".into(), retry_at }
    }
    type Case = (&'static str, Option<fn() -> SyncError>, u64, u64);
    let cases: [Case; 6] = [
        ("success", None, 60, 90),
        ("an error", Some(|| SyncError::failed("no")), 10, 15),
        ("the network is not ready", Some(|| SyncError::NetworkNotReady("yet".into())), 1, 2),
        ("a back-off", Some(|| back_off(20)), 20, 30),
        ("a back-off that is over", Some(|| back_off(-20)), 0, 0),
        ("a back-off that is longer than the resync interval", Some(|| back_off(600)), 60, 90),
    ];
    for (name, error, least, most) in cases {
        let mut waits = Vec::new();
        for _ in 0..20 {
            let rig = Rig::new();
            *rig.syncer.error.lock() = error.map(|error| error());
            let began = Instant::now();
            rig.workers.update_pod(update(SyncPodType::Create, plain()));
            assert_eq!(rig.queue.due().await, [PodUid::from(UID)], "{name}");
            waits.push(began.elapsed());
        }
        let slack = Duration::from_millis(5);
        let range = Duration::from_secs(least)..=Duration::from_secs(most) + slack;
        assert!(waits.iter().all(|wait| range.contains(wait)), "{name}: {waits:?}");
        let spread = waits.iter().max().unwrap().abs_diff(*waits.iter().min().unwrap());
        assert!(most == 0 || spread > Duration::from_millis(10), "{name}: there is jitter: {waits:?}");
    }
}

#[test]
fn calculate_effective_grace_period() {
    let of = |spec: Option<i64>, deletion: Option<i64>| {
        pod(
            json!({"spec": {"terminationGracePeriodSeconds": spec}, "metadata": {"deletionGracePeriodSeconds": deletion}}),
        )
    };
    /// What it was, the pod's own, the deletion's, the override, what it is, whether a period became shorter.
    type Case = (i64, Option<i64>, Option<i64>, Option<i64>, i64, bool);
    let cases: [Case; 10] = [
        (0, Some(30), None, None, 30, false),
        (0, Some(30), Some(5), None, 5, false),
        (0, Some(30), Some(5), Some(2), 2, false),
        (0, Some(30), Some(0), None, 1, false),
        (0, Some(30), Some(5), Some(0), 1, false),
        (0, None, None, None, 1, false),
        (10, Some(30), Some(20), None, 10, false),
        (10, Some(30), None, None, 10, false),
        (10, Some(30), Some(4), None, 4, true),
        (10, Some(30), Some(20), Some(3), 3, true),
    ];
    for (before, spec, deletion, wanted, expected, shorter) in cases {
        let mut status = PodSyncStatus { grace_period: before, ..PodSyncStatus::default() };
        let shortened = status.shrink_grace_period(Some(&of(spec, deletion)), wanted);
        let case = (before, spec, deletion, wanted);
        assert_eq!((status.grace_period, shortened), (expected, shorter), "{case:?}");
    }
}

/// `Test_removeTerminatedWorker` and `TestSyncKnownPods`: a pod that is not desired any more.
#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_driven_to_its_end_and_then_forgotten() {
    let rig = Rig::new();
    rig.tell(update(SyncPodType::Create, plain())).await;
    let desired = rig.workers.sync_known_pods(&[plain()]);
    assert_eq!(
        desired.values().map(|w| (w.state, w.orphan)).collect::<Vec<_>>(),
        [(PodWorkerState::Sync, false)]
    );
    let orphaned = rig.workers.sync_known_pods(&[]);
    assert_eq!(
        orphaned.values().map(|w| (w.state, w.orphan)).collect::<Vec<_>>(),
        [(PodWorkerState::Terminating, true)]
    );
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.calls(), ["sync Create", "terminating 30", "terminated"]);
    assert!(rig.workers.should_pod_content_be_removed(UID));
    assert!(rig.workers.sync_known_pods(&[]).is_empty());
    assert!(rig.status(|status| status.is_none()));
    assert!(!rig.workers.could_have_running_containers(UID) && rig.workers.should_pod_be_finished(UID));
}
