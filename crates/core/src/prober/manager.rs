//! All probes of the node, and the scheduler that makes them (upstream: `prober/prober_manager.go`, where each probe
//! is a goroutine).

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::results::{ProbeResults, Update};
use super::run_probe::{Job, Prober, forget_counts};
use super::worker::{Attempt, Next, Seen, Worker};
use super::{ProbeKey, ProbeType, probes_of};
use crate::clock;
use crate::pod::{PodExt, PodUid};
use crate::pod_cache::PodCache;
use crate::ports::ProbeOutcome;
use crate::status::StatusManager;
use crate::work_queue::WorkQueue;

/// Probes that run at a time. If every one of ten thousand hangs for the default timeout (one second in ten) they take
/// a thousand places; so a few that hang, even for long, hold up nobody. Each costs a task and a connection.
const MAX_CONCURRENT_PROBES: usize = 1024;
/// Changes that wait for the sync loop, which never waits itself.
const UPDATE_BUFFER: usize = 256;

/// Knows all probes, and makes those that are due while [`run`](Self::run) runs.
pub struct Manager {
    workers: Mutex<BTreeMap<PodUid, Vec<Worker>>>,
    queue: WorkQueue<ProbeKey>,
    results: Arc<ProbeResults>,
    status_manager: Arc<StatusManager>,
    cache: Arc<PodCache>,
    prober: Prober,
    updates: mpsc::Sender<Update>,
    started_at: Timestamp,
}

type Finished = (Job, Attempt, ProbeOutcome);

impl Manager {
    /// A manager without probes, and the results that change.
    pub fn new(
        results: Arc<ProbeResults>,
        status_manager: Arc<StatusManager>,
        cache: Arc<PodCache>,
        prober: Prober,
    ) -> (Self, mpsc::Receiver<Update>) {
        let (updates, receiver) = mpsc::channel(UPDATE_BUFFER);
        let manager = Self {
            workers: Mutex::default(),
            queue: WorkQueue::default(),
            results,
            status_manager,
            cache,
            prober,
            updates,
            started_at: clock::now(),
        };
        (manager, receiver)
    }

    /// Adds the probes of a pod that are not there yet (`AddPod`). To be called once its status is set: what that says
    /// of containers that run is where their probes begin.
    pub fn add_pod(&self, pod: &Arc<Pod>) {
        if probes_of(pod).next().is_none() {
            return;
        }
        let uid = pod.uid();
        let status = self.status_manager.get_pod_status(&uid);
        let mut all = self.workers.lock();
        let workers = all.entry(uid.clone()).or_default();
        for (container, probe_type, probe) in probes_of(pod) {
            let known = workers
                .iter_mut()
                .find(|w| w.key.probe_type == probe_type && *w.key.container == *container.name);
            if let Some(worker) = known {
                worker.pod = pod.clone();
                continue;
            }
            let key =
                ProbeKey { pod_uid: uid.clone(), container: container.name.as_str().into(), probe_type };
            let mut worker = Worker::new(key.clone(), pod.clone(), container, probe);
            if let Some(status) = &status {
                worker.follow_container(status, self.results.of(probe_type));
            }
            workers.push(worker);
            self.queue.enqueue_at(key, Instant::now());
        }
    }

    /// The pod is to end: nobody restarts its containers any more (`StopLivenessAndStartup`). Whether they are ready is
    /// of interest as long as they run.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.stop(uid, |worker| worker.key.probe_type != ProbeType::Readiness);
    }

    /// Nothing of the pod runs any more (`RemovePod`).
    pub fn remove_pod(&self, uid: &str) {
        self.stop(uid, |_| true);
    }

    /// Stops the probes of all other pods (`CleanupPods`).
    pub fn cleanup_pods(&self, may_run: impl Fn(&PodUid) -> bool) {
        let gone: Vec<PodUid> = self.workers.lock().keys().filter(|uid| !may_run(uid)).cloned().collect();
        for uid in gone {
            self.remove_pod(&uid);
        }
    }

    /// The status of a pod was set: its probes may be due, or over.
    pub fn pod_status_set(&self, uid: &str) {
        let now = Instant::now();
        for worker in self.workers.lock().get(uid).into_iter().flatten() {
            self.queue.enqueue_at(worker.key.clone(), now);
        }
    }

    /// Whose probes there are.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        let queued = self.queue.keys().into_iter().map(|key| key.pod_uid);
        self.workers.lock().keys().cloned().chain(queued).collect()
    }

    /// Makes probes until dropped; then those that run end.
    pub async fn run(self: Arc<Self>) {
        let mut running: JoinSet<Finished> = JoinSet::new();
        let mut waiting: VecDeque<ProbeKey> = VecDeque::new();
        loop {
            tokio::select! {
                due = self.queue.due(), if waiting.is_empty() => waiting.extend(due),
                Some(finished) = running.join_next() => {
                    // One that was aborted has nobody who waits for it.
                    if let Ok(finished) = finished
                        && let Some(update) = self.complete(finished)
                    {
                        // Without a sync loop nobody reacts.
                        let _ = self.updates.send(update).await;
                    }
                }
            }
            while running.len() < MAX_CONCURRENT_PROBES
                && let Some(key) = waiting.pop_front()
            {
                self.look_at(&key, &mut running);
            }
        }
    }

    fn look_at(&self, key: &ProbeKey, running: &mut JoinSet<Finished>) {
        let Some(status) = self.status_manager.get_pod_status(&key.pod_uid) else { return };
        let mut workers = self.workers.lock();
        let Some(of_pod) = workers.get_mut(&key.pod_uid) else { return };
        let Some(worker) = of_pod.iter_mut().find(|w| w.key == *key) else { return };
        let results = self.results.of(key.probe_type);
        worker.follow_container(&status, results);
        let seen = Seen {
            status: &status,
            started_at: self.started_at(worker),
            agent_started_at: self.started_at,
            wall: clock::now(),
            now: Instant::now(),
            spread: fastrand::f64(),
        };
        match worker.next(&seen, results) {
            Next::Wait => {}
            Next::At(at) => self.queue.enqueue_at(key.clone(), at),
            Next::Stop => {
                worker.forget_container(results);
                of_pod.retain(|w| w.key != *key);
                if of_pod.is_empty() {
                    workers.remove(&key.pod_uid);
                }
            }
            Next::Probe(attempt) => {
                let Some(container_id) = worker.container_id().map(str::to_owned) else { return };
                let (key, pod, pod_ip) = (key.clone(), worker.pod.clone(), status.pod_ip.clone());
                let (job, prober) = (Job { key, pod, container_id, pod_ip }, self.prober.clone());
                let task = running.spawn(async move {
                    let outcome = AssertUnwindSafe(prober.probe(&job)).catch_unwind().await;
                    let panicked = |_| ProbeOutcome::Unknown("the probe panicked".to_owned());
                    (job, attempt, outcome.unwrap_or_else(panicked))
                });
                worker.begin(&attempt, task);
            }
        }
    }

    /// When the worker's container started: exactly if a runtime has it, else in whole seconds.
    fn started_at(&self, worker: &Worker) -> Option<Timestamp> {
        let id = worker.container_id()?;
        let runtime = self.cache.get(&worker.key.pod_uid);
        runtime.containers.iter().find(|c| c.container_id() == id).and_then(|c| c.started_at)
    }

    fn complete(&self, (job, attempt, outcome): Finished) -> Option<Update> {
        let mut workers = self.workers.lock();
        let of_pod = workers.get_mut(&job.key.pod_uid)?;
        let worker = of_pod.iter_mut().find(|w| w.key == job.key && w.is_current(&attempt))?;
        let results = self.results.of(job.key.probe_type);
        let update = worker.complete(&attempt, &outcome, Instant::now(), results);
        self.queue.enqueue_at(job.key.clone(), Instant::now());
        drop(workers);
        if attempt.counts || matches!(outcome, ProbeOutcome::Warning(_)) {
            self.prober.record(&job, &outcome);
        }
        update
    }

    fn stop(&self, uid: &str, which: impl Fn(&Worker) -> bool) {
        let mut workers = self.workers.lock();
        let Some(of_pod) = workers.get_mut(uid) else { return };
        for worker in of_pod.iter_mut().filter(|w| which(w)) {
            worker.forget_container(self.results.of(worker.key.probe_type));
            self.queue.remove(&worker.key);
            forget_counts(&worker.pod, &worker.key);
        }
        of_pod.retain(|w| !which(w));
        if of_pod.is_empty() {
            workers.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests;
