//! Where a pod is on its way (upstream: `podSyncStatus`).

use std::sync::Arc;

use coracle_provider::PodRef;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::options::{PodStatusFn, Subject, SyncPodType, UpdatePodOptions};
use crate::pod::PodExt;

/// The three states of a pod worker (`PodWorkerState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodWorkerState {
    /// Containers are started and kept running.
    Sync,
    /// Containers are being stopped; none starts any more.
    Terminating,
    /// Nothing runs; what is left is being given back.
    Terminated,
}

/// What the worker works from: the newest of everything it was told.
#[derive(Clone, Debug)]
pub(super) struct ActiveUpdate {
    pub(super) update_type: SyncPodType,
    pub(super) pod: Option<Arc<Pod>>,
    pub(super) running_pod: Option<PodRef>,
}

/// The record of one pod worker. Only its own lock's holder touches it.
#[derive(Default)]
pub(super) struct PodSyncStatus {
    pub(super) full_name: String,
    /// An update waits or is being worked on.
    pub(super) working: bool,
    /// The one slot: the latest update wins.
    pub(super) pending: Option<UpdatePodOptions>,
    /// Set once the pod was allowed to start; replayed when nothing newer is there.
    pub(super) active: Option<ActiveUpdate>,
    /// The pod was allowed to start.
    pub(super) started: bool,
    /// The pod is to end.
    pub(super) termination_requested: bool,
    /// The worker has seen that: no container starts any more.
    pub(super) termination_started: bool,
    /// Nothing of the pod runs any more.
    pub(super) terminated: bool,
    /// Everything is given back; the worker has ended.
    pub(super) finished: bool,
    /// Deleted in the source, or no longer known there.
    pub(super) deleted: bool,
    pub(super) evicted: bool,
    /// The same UID was wanted again after it had to end (static pods).
    pub(super) restart_requested: bool,
    /// It was seen in a runtime: then it must be taken down, started here or not.
    pub(super) observed_runtime: bool,
    /// Seconds; 0 until termination is requested, then at least 1 and only ever shrinking.
    pub(super) grace_period: i64,
    pub(super) notify_terminated: Vec<oneshot::Sender<()>>,
    pub(super) pod_status_fns: Vec<PodStatusFn>,
    /// Cancels the sync that runs now.
    pub(super) cancel: CancellationToken,
}

impl PodSyncStatus {
    /// The state that the next sync is for.
    pub(super) fn work_type(&self) -> PodWorkerState {
        if self.terminated {
            PodWorkerState::Terminated
        } else if self.termination_requested {
            PodWorkerState::Terminating
        } else {
            PodWorkerState::Sync
        }
    }

    /// The newest object that is known of the pod.
    pub(super) fn known_pod(&self) -> Option<&Arc<Pod>> {
        let pending = self.pending.as_ref().and_then(|p| p.subject.pod());
        pending.or_else(|| self.active.as_ref().and_then(|a| a.pod.as_ref()))
    }

    /// Puts an update into the slot, and cancels a sync that it supersedes: the pod has to end now, or sooner.
    pub(super) fn accept(&mut self, mut update: UpdatePodOptions, became_terminating: bool) {
        let kill = update.kill.take().unwrap_or_default();
        let mut grace_shortened = false;
        if self.termination_requested && !self.terminated {
            self.notify_terminated.extend(kill.completed);
            self.pod_status_fns.extend(kill.pod_status_fn);
            let pod = update.subject.pod().cloned();
            grace_shortened = self.shrink_grace_period(pod.as_deref(), kill.grace_period_seconds_override);
        } else {
            // There is nothing to wait for: nothing runs, or the pod is not to end.
            notify(kill.completed);
        }
        self.pending = Some(update);
        self.working = true;
        if became_terminating || grace_shortened {
            self.cancel.cancel();
        }
    }

    /// Nothing of the pod runs any more.
    pub(super) fn set_terminated(&mut self) {
        self.terminated = true;
        notify(self.notify_terminated.drain(..));
        self.pod_status_fns.clear();
    }

    /// Makes an update what the worker works from (`mergeLastUpdate`).
    pub(super) fn merge_last_update(&mut self, update: &UpdatePodOptions) {
        let old_pod = self.active.take().and_then(|active| active.pod);
        let (pod, running_pod) = match &update.subject {
            Subject::Pod(pod) => (Some(pod.clone()), None),
            Subject::RunningPod(running) => (old_pod, Some(running.clone())),
        };
        self.active = Some(ActiveUpdate { update_type: update.update_type, pod, running_pod });
    }

    /// The update to work on when nothing newer was sent (`requeueLastPodUpdate`). None if nothing was worked on yet.
    pub(super) fn replay_last_update(&mut self) -> bool {
        if self.pending.is_some() {
            return false;
        }
        let Some(active) = &self.active else { return false };
        let subject = match (&active.running_pod, &active.pod) {
            (Some(running), _) => Subject::RunningPod(running.clone()),
            (None, Some(pod)) => Subject::Pod(pod.clone()),
            (None, None) => return false,
        };
        self.pending = Some(UpdatePodOptions { update_type: active.update_type, subject, kill: None });
        self.working = true;
        true
    }

    /// Shrinks the grace period to the smallest that anybody asked for, never below a second
    /// (`calculateEffectiveGracePeriod`). Says whether a period that was already set became shorter.
    pub(super) fn shrink_grace_period(&mut self, pod: Option<&Pod>, wanted: Option<i64>) -> bool {
        let asked =
            [pod.and_then(|p| p.metadata.deletion_grace_period_seconds), wanted].into_iter().flatten().min();
        let own = pod.and_then(|p| p.pod_spec().termination_grace_period_seconds);
        let old = self.grace_period;
        let new = match (old, asked) {
            (0, Some(asked)) => asked,
            (0, None) => own.unwrap_or(1),
            (old, Some(asked)) => old.min(asked),
            (old, None) => old,
        };
        self.grace_period = new.max(1);
        old != 0 && old != self.grace_period
    }
}

/// Tells those who wait; they may have stopped waiting.
fn notify(waiters: impl IntoIterator<Item = oneshot::Sender<()>>) {
    for waiter in waiters {
        let _ = waiter.send(());
    }
}
