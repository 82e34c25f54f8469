//! One worker a pod: decides in which state a pod is, and runs one sync of it at a time
//! (upstream: `pkg/kubelet/pod_workers.go`).
//!
//! A pod is synced until it ends by itself or has to end; then it is terminating until nothing of it runs; then it
//! is terminated and gives everything back. The workers are the truth about what may still run.

mod known;
mod options;
mod status;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span};

pub use known::PodWorkerSync;
pub use options::{
    KillPodOptions, PodStatusFn, PodSyncer, Subject, SyncError, SyncPodType, UpdatePodOptions,
};
use status::PodSyncStatus;
pub use status::PodWorkerState;

use crate::pod::{PodExt, PodUid, phase};
use crate::pod_cache::PodCache;
use crate::work_queue::WorkQueue;

/// All pod workers of the node.
pub struct PodWorkers {
    inner: Mutex<Inner>,
    syncer: Weak<dyn PodSyncer>,
    cache: Arc<PodCache>,
    work_queue: Arc<WorkQueue>,
    options: PodWorkersOptions,
    tasks: TaskTracker,
}

/// Periods of the workers.
#[derive(Clone, Copy, Debug)]
pub struct PodWorkersOptions {
    /// After success: when to look again (`syncFrequency`).
    pub resync_interval: Duration,
    /// After an error that says nothing better (`backOffPeriod`).
    pub back_off_period: Duration,
}

impl Default for PodWorkersOptions {
    fn default() -> Self {
        Self { resync_interval: Duration::from_secs(60), back_off_period: Duration::from_secs(10) }
    }
}

#[derive(Default)]
struct Inner {
    /// All pods known at the start have been told to their workers.
    pods_synced: bool,
    /// The workers that run.
    running: HashMap<PodUid, RunningWorker>,
    statuses: BTreeMap<PodUid, PodSyncStatus>,
    /// Only one static pod of a full name runs at a time.
    started_static: HashMap<String, PodUid>,
    waiting_static: HashMap<String, Vec<PodUid>>,
}

struct RunningWorker {
    /// Wakes it. Dropping the sender ends it.
    wake: mpsc::Sender<()>,
    task: AbortHandle,
}

/// Breaks all workers off when it is dropped.
struct StopOnDrop(Arc<PodWorkers>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        for (_, worker) in self.0.inner.lock().running.drain() {
            worker.task.abort();
        }
    }
}

impl PodWorkers {
    /// Workers that call `syncer`. It is held weakly: whoever owns it owns the workers too.
    pub fn new(
        syncer: Weak<dyn PodSyncer>,
        cache: Arc<PodCache>,
        work_queue: Arc<WorkQueue>,
        options: PodWorkersOptions,
    ) -> Self {
        let (inner, tasks) = (Mutex::default(), TaskTracker::new());
        Self { inner, syncer, cache, work_queue, options, tasks }
    }

    /// Lets the workers run until this is dropped. That breaks them off, wherever they are, and nothing of what they were
    /// doing is done any more but the calls of providers that have begun.
    pub async fn run(self: Arc<Self>) {
        let _stop = StopOnDrop(self);
        std::future::pending().await
    }

    /// Tells a pod's worker something (`UpdatePod`). Never waits.
    pub fn update_pod(self: &Arc<Self>, mut update: UpdatePodOptions) {
        let uid = update.subject.uid();
        let mut inner = self.inner.lock();
        let first_time = !inner.statuses.contains_key(&uid);
        if first_time {
            let status = self.first_status(&update);
            inner.statuses.insert(uid.clone(), status);
        }
        let Some(status) = inner.statuses.get_mut(&uid) else { return };

        let runtime_only = matches!(update.subject, Subject::RunningPod(_));
        if runtime_only {
            // A list may be older than the end of the pod.
            if status.terminated {
                return;
            }
            // Once seen in a runtime it has to be driven to its end, with the best object that is known of it.
            status.observed_runtime = true;
            if let Some(pod) = status.known_pod() {
                update.subject = Subject::Pod(pod.clone());
            }
        }
        if !first_time && status.termination_requested && update.update_type == SyncPodType::Create {
            status.restart_requested = true;
            return;
        }
        if status.finished {
            return;
        }
        let became_terminating =
            !status.termination_requested && request_termination(status, &update, runtime_only);
        status.accept(update, became_terminating);
        self.ensure_worker(&mut inner, &uid);
    }

    /// A pod that is seen for the first time, terminal and without anything running, ended before the agent
    /// restarted: only what it held is left to give back.
    fn first_status(&self, update: &UpdatePodOptions) -> PodSyncStatus {
        let mut status = PodSyncStatus { full_name: update.subject.full_name(), ..PodSyncStatus::default() };
        let ended = update.subject.pod().is_some_and(|pod| phase::is_terminal(pod.phase()));
        if ended && !self.cache.get(&update.subject.uid()).is_alive() {
            status.termination_requested = true;
            status.termination_started = true;
            status.terminated = true;
        }
        status
    }

    /// Starts the worker of a pod if there is none, and wakes it.
    fn ensure_worker(self: &Arc<Self>, inner: &mut Inner, uid: &PodUid) {
        if !inner.running.contains_key(uid) {
            let (wake, woken) = mpsc::channel(1);
            let Some(status) = inner.statuses.get(uid) else { return };
            if status.known_pod().is_some_and(|pod| pod.is_static()) {
                let waiting = inner.waiting_static.entry(status.full_name.clone()).or_default();
                waiting.push(uid.clone());
            }
            let span = info_span!("pod_worker", pod = %status.full_name, %uid);
            debug!(parent: &span, "starting pod worker");
            let worker = self.clone().pod_worker_loop(uid.clone(), woken).instrument(span);
            let task = self.tasks.spawn(worker).abort_handle();
            inner.running.insert(uid.clone(), RunningWorker { wake, task });
        }
        inner.wake(uid);
    }

    /// Waits until every worker has ended; only sensible once all pods are being killed.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether the pod has, or had, a worker.
    pub fn knows(&self, uid: &str) -> bool {
        self.status(uid, |s| s.is_some())
    }

    /// Whether nothing of the pod runs and nothing ever will (`IsPodKnownTerminated`). False for an unknown pod.
    pub fn is_pod_known_terminated(&self, uid: &str) -> bool {
        self.status(uid, |s| s.is_some_and(|s| s.terminated))
    }

    /// Whether containers of the pod may run (`CouldHaveRunningContainers`).
    pub fn could_have_running_containers(&self, uid: &str) -> bool {
        let inner = self.inner.lock();
        inner.statuses.get(uid).map_or(!inner.pods_synced, |s| !s.terminated)
    }

    /// Whether everything of the pod has been given back (`ShouldPodBeFinished`).
    pub fn should_pod_be_finished(&self, uid: &str) -> bool {
        let inner = self.inner.lock();
        inner.statuses.get(uid).map_or(inner.pods_synced, |s| s.finished)
    }

    /// Whether the pod is to end (`IsPodTerminationRequested`). False for an unknown pod.
    pub fn is_pod_termination_requested(&self, uid: &str) -> bool {
        self.status(uid, |s| s.is_some_and(|s| s.termination_requested))
    }

    /// Whether a static pod of this full name is on its way out (`IsPodForMirrorPodTerminatingByFullName`).
    pub fn is_static_pod_terminating(&self, full_name: &str) -> bool {
        let inner = self.inner.lock();
        let status = inner.started_static.get(full_name).and_then(|uid| inner.statuses.get(uid));
        status.is_some_and(|s| s.termination_requested && !s.terminated)
    }

    /// Whether the pod's worker has something to do, or is doing it.
    pub fn is_working(&self, uid: &str) -> bool {
        self.status(uid, |s| s.is_some_and(|s| s.working))
    }

    /// Whether files and logs of the pod should go (`ShouldPodContentBeRemoved`).
    pub fn should_pod_content_be_removed(&self, uid: &str) -> bool {
        let inner = self.inner.lock();
        inner.statuses.get(uid).map_or(inner.pods_synced, |s| s.evicted || (s.deleted && s.terminated))
    }

    /// Whose workers there are.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        self.inner.lock().statuses.keys().cloned().collect()
    }

    fn status<T>(&self, uid: &str, read: impl FnOnce(Option<&PodSyncStatus>) -> T) -> T {
        read(self.inner.lock().statuses.get(uid))
    }
}

impl Inner {
    fn wake(&self, uid: &PodUid) {
        if let Some(worker) = self.running.get(uid) {
            // Full means that the worker is about to look anyway.
            let _ = worker.wake.try_send(());
        }
    }
}

/// Decides whether an update is the pod's end; notes why. Says whether it is.
fn request_termination(status: &mut PodSyncStatus, update: &UpdatePodOptions, runtime_only: bool) -> bool {
    let pod: Option<&Arc<Pod>> = update.subject.pod();
    if runtime_only || pod.is_some_and(|p| p.is_deleting()) {
        status.deleted = true;
    } else if pod.is_some_and(|p| phase::is_terminal(p.phase())) {
        // It ended before: what is left is taken down.
    } else if update.update_type == SyncPodType::Kill {
        status.evicted |= update.kill.as_ref().is_some_and(|k| k.evict);
    } else {
        return false;
    }
    status.termination_requested = true;
    true
}
