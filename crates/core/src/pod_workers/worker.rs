//! The loop of one worker.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::options::{PodStatusFn, PodSyncer, Subject, SyncError, SyncPodType, UpdatePodOptions};
use super::status::PodWorkerState;
use super::{Inner, PodWorkers};
use crate::backoff::jitter;
use crate::clock;
use crate::metrics;
use crate::pod::{PodExt, PodUid};

/// Jitter of all periods, as a share of them.
const JITTER: f64 = 0.5;
/// After an error that is likely to pass (`backOffOnTransientErrorPeriod`).
const TRANSIENT_BACK_OFF: Duration = Duration::from_secs(1);

/// A piece of work that was taken out of the slot.
struct Work {
    state: PodWorkerState,
    update: UpdatePodOptions,
    grace_period: i64,
    cancel: CancellationToken,
}

impl Work {
    /// How metrics call it (`SyncPodType`'s texts, and `terminated`).
    fn operation(&self) -> &'static str {
        match (self.state, self.update.update_type) {
            (PodWorkerState::Terminated, _) => "terminated",
            (_, SyncPodType::Create) => "create",
            (_, SyncPodType::Update) => "update",
            (_, SyncPodType::Sync) => "sync",
            (_, SyncPodType::Kill) => "kill",
        }
    }
}

/// What a wake-up came to.
enum Start {
    /// Something to do.
    Work(Work),
    /// Nothing, wait for the next one.
    Wait,
    /// Nothing ever again.
    End,
}

/// How a sync ended.
enum Outcome {
    /// The pod goes on in the same state.
    Same,
    /// The pod is to go on in the next state at once.
    Next,
    /// The worker's work is done.
    Done,
}

impl PodWorkers {
    /// Works on one pod until it is terminated, or its wake-up channel is dropped (`podWorkerLoop`).
    pub(super) async fn pod_worker_loop(self: Arc<Self>, uid: PodUid, mut woken: mpsc::Receiver<()>) {
        while woken.recv().await.is_some() {
            let work = match self.start_pod_sync(&uid) {
                Start::Work(work) => work,
                Start::Wait => continue,
                Start::End => return,
            };
            let Some(syncer) = self.syncer.upgrade() else { return };
            let started = Instant::now();
            let result = tokio::select! {
                biased;
                result = self.sync(&*syncer, &uid, &work) => result,
                () = work.cancel.cancelled() => {
                    syncer.sync_abandoned(&uid);
                    Err(SyncError::Cancelled)
                }
            };
            drop(syncer);
            let duration = metrics::POD_WORKER_DURATION.with_label_values(&[work.operation()]);
            duration.observe(started.elapsed().as_secs_f64());
            match self.complete(&uid, &work, &result) {
                Outcome::Done => return,
                outcome => self.complete_work(&uid, matches!(outcome, Outcome::Next), &result),
            }
        }
    }

    /// Takes the update out of the slot and decides whether the pod may start (`startPodSync`).
    fn start_pod_sync(&self, uid: &PodUid) -> Start {
        let mut inner = self.inner.lock();
        let Some(status) = inner.statuses.get_mut(uid) else { return Start::End };
        let Some(update) = status.pending.take() else {
            status.working = false;
            return Start::Wait;
        };
        let state = status.work_type();
        let orphan = matches!(update.subject, Subject::RunningPod(_));
        let may_go_on = status.started || (orphan && state == PodWorkerState::Terminating);
        if !may_go_on {
            match inner.allow_pod_start(&update) {
                PodStart::Now => {}
                PodStart::Later => {
                    if let Some(status) = inner.statuses.get_mut(uid) {
                        status.pending = Some(update);
                        status.working = false;
                    }
                    self.work_queue.enqueue(uid.clone(), jitter(self.options.back_off_period, JITTER));
                    return Start::Wait;
                }
                PodStart::Never => {
                    inner.finish(uid);
                    return Start::End;
                }
            }
        }
        let Some(status) = inner.statuses.get_mut(uid) else { return Start::End };
        status.started |= !orphan;
        status.merge_last_update(&update);
        if status.cancel.is_cancelled() {
            status.cancel = CancellationToken::new();
        }
        Start::Work(Work { state, update, grace_period: status.grace_period, cancel: status.cancel.clone() })
    }

    async fn sync(&self, syncer: &dyn PodSyncer, uid: &PodUid, work: &Work) -> Result<bool, SyncError> {
        let pod = match &work.update.subject {
            Subject::Pod(pod) => pod,
            Subject::RunningPod(running) => {
                self.acknowledge_terminating(uid);
                return syncer.sync_terminating_runtime_pod(running).await.map(|()| false);
            }
        };
        match work.state {
            PodWorkerState::Sync => syncer.sync_pod(work.update.update_type, pod).await,
            PodWorkerState::Terminating => {
                let runtime = syncer.runtime_pod(pod).await?;
                let status_fn = self.acknowledge_terminating(uid);
                let grace = Some(work.grace_period);
                syncer.sync_terminating_pod(pod, runtime, grace, status_fn).await.map(|()| false)
            }
            PodWorkerState::Terminated => {
                let runtime = syncer.runtime_pod(pod).await?;
                syncer.sync_terminated_pod(pod, runtime).await.map(|()| false)
            }
        }
    }

    /// The worker has seen that the pod is to end: from here on no container starts (`acknowledgeTerminating`).
    fn acknowledge_terminating(&self, uid: &PodUid) -> Option<PodStatusFn> {
        let mut inner = self.inner.lock();
        let status = inner.statuses.get_mut(uid)?;
        status.termination_started |= status.termination_requested;
        status.pod_status_fns.last().cloned()
    }

    /// Moves the pod to its next state if the sync was the last of this one.
    fn complete(&self, uid: &PodUid, work: &Work, result: &Result<bool, SyncError>) -> Outcome {
        let ended = match result {
            Ok(ended) => *ended,
            Err(SyncError::Cancelled) => {
                debug!("sync cancelled by a newer update");
                return Outcome::Same;
            }
            Err(error) => {
                warn!(%error, "error syncing pod");
                return Outcome::Same;
            }
        };
        let mut inner = self.inner.lock();
        let orphan = matches!(work.update.subject, Subject::RunningPod(_));
        match work.state {
            PodWorkerState::Sync if !ended => Outcome::Same,
            PodWorkerState::Sync => {
                inner.advance(uid, |status| {
                    status.termination_requested = true;
                    status.termination_started = true;
                    let pod = status.known_pod().cloned();
                    status.shrink_grace_period(pod.as_deref(), None);
                });
                Outcome::Next
            }
            PodWorkerState::Terminating if orphan => {
                inner.finish(uid);
                inner.statuses.remove(uid);
                self.work_queue.remove(uid);
                Outcome::Done
            }
            PodWorkerState::Terminating => {
                inner.advance(uid, super::PodSyncStatus::set_terminated);
                Outcome::Next
            }
            PodWorkerState::Terminated => {
                inner.finish(uid);
                self.work_queue.remove(uid);
                Outcome::Done
            }
        }
    }

    /// Says when to look at the pod again, and goes on at once if something waits (`completeWork`).
    fn complete_work(&self, uid: &PodUid, next_state: bool, result: &Result<bool, SyncError>) {
        let delay = match result {
            _ if next_state => Duration::ZERO,
            Ok(_) => jitter(self.options.resync_interval, JITTER),
            Err(SyncError::NetworkNotReady(_)) => jitter(TRANSIENT_BACK_OFF, JITTER),
            Err(SyncError::Failed { retry_at: Some(at), .. }) => {
                let wait = at.duration_since(clock::now()).max(SignedDuration::ZERO);
                jitter(wait.unsigned_abs().min(self.options.resync_interval), JITTER)
            }
            Err(_) => jitter(self.options.back_off_period.min(self.options.resync_interval), JITTER),
        };
        self.work_queue.enqueue(uid.clone(), delay);
        let mut inner = self.inner.lock();
        let Some(status) = inner.statuses.get_mut(uid) else { return };
        status.working = status.pending.is_some();
        if status.working {
            inner.wake(uid);
        }
    }
}

/// Whether a pod may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodStart {
    Now,
    Later,
    Never,
}

impl Inner {
    /// A static pod waits for others of its full name; one that has to end before it started never starts, and one that
    /// was found running waits for nobody to end (`allowPodStart`).
    fn allow_pod_start(&mut self, update: &UpdatePodOptions) -> PodStart {
        let Subject::Pod(pod) = &update.subject else { return PodStart::Never };
        if !pod.is_static() {
            return PodStart::Now;
        }
        let uid = pod.uid();
        let Some(status) = self.statuses.get(&uid) else { return PodStart::Never };
        if status.termination_requested {
            return if status.observed_runtime { PodStart::Now } else { PodStart::Never };
        }
        let full_name = status.full_name.clone();
        if self.allow_static_pod_start(&full_name, &uid) { PodStart::Now } else { PodStart::Later }
    }

    /// The first of those that wait for a full name may start, once nobody else has it (`allowStaticPodStart`).
    fn allow_static_pod_start(&mut self, full_name: &str, uid: &PodUid) -> bool {
        if let Some(started) = self.started_static.get(full_name) {
            return started == uid;
        }
        let mut waiting = self.waiting_static.remove(full_name).unwrap_or_default();
        waiting.retain(|w| self.statuses.get(w).is_some_and(|s| !s.termination_requested));
        let is_next = waiting.first().is_none_or(|first| first == uid);
        if is_next {
            waiting.retain(|w| w != uid);
            self.started_static.insert(full_name.to_owned(), uid.clone());
        }
        if !waiting.is_empty() {
            self.waiting_static.insert(full_name.to_owned(), waiting);
        }
        is_next
    }

    /// Changes the state of a pod and lets its worker go on at once.
    fn advance(&mut self, uid: &PodUid, change: impl FnOnce(&mut super::PodSyncStatus)) {
        let Some(status) = self.statuses.get_mut(uid) else { return };
        change(status);
        status.replay_last_update();
        self.wake(uid);
    }

    /// The worker is done with this pod: it terminated, or had to end before it was ever started.
    fn finish(&mut self, uid: &PodUid) {
        self.running.remove(uid);
        let Some(status) = self.statuses.get_mut(uid) else { return };
        status.set_terminated();
        status.finished = true;
        status.working = false;
        let full_name = status.full_name.clone();
        self.release_static(&full_name, uid);
    }

    pub(super) fn release_static(&mut self, full_name: &str, uid: &PodUid) {
        if self.started_static.get(full_name) == Some(uid) {
            self.started_static.remove(full_name);
            // Those who wait for the name need not wait for their next look.
            self.waiting_static.get(full_name).into_iter().flatten().for_each(|next| self.wake(next));
        }
    }
}

#[cfg(test)]
mod static_pods;
#[cfg(test)]
mod tests;
