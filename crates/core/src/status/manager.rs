//! Writes the status of pods: one writer a pod, many pods at once, no GET (upstream: `status_manager.go`).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::conditions::update_readiness_conditions;
use super::ended_mirrors::EndedMirrors;
use super::merge::{
    IllegalTransition, check_container_state_transition, complete, equal_by_kubelet, merge_pod_status,
};
use super::patch::status_patch;
use super::terminate::{terminated_status, without_made_up_ends};
use crate::backoff::Delay;
use crate::metrics;
use crate::pod::{PodExt, PodUid, phase};
use crate::pod_manager::PodManager;
use crate::ports::{ApiError, StatusSink, StatusUpdate};
use crate::work_queue::WorkQueue;

/// A status that another one is likely to follow at once waits this long for it: a pod that starts within it is
/// written once, as Running, and one that ends is written once, as ended.
const COALESCE: Duration = Duration::from_millis(50);
/// A terminal phase that was held back, because something of the pod may still run, is looked at again after this.
const HELD_BACK: Duration = Duration::from_millis(200);
/// Writes at a time. Below this the apiserver's own queueing decides.
const MAX_CONCURRENT_WRITES: usize = 32;
/// How often statuses are compared with what the apiserver showed last (`syncPeriod`).
const RECONCILE_PERIOD: Duration = Duration::from_secs(10);
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Says whether a terminal phase may be told to the world (upstream's interface of this name).
pub trait PodDeletionSafetyProvider: Send + Sync {
    /// Whether containers of this pod may still run.
    fn pod_could_have_running_containers(&self, uid: &str) -> bool;
}

/// The statuses of all pods, and the way they take to the apiserver.
pub struct StatusManager {
    sink: Arc<dyn StatusSink>,
    /// Knows the mirror pods: statuses of static pods go there.
    pods: Arc<PodManager>,
    entries: Mutex<BTreeMap<PodUid, Entry>>,
    ended_mirrors: EndedMirrors,
    /// Whose status is being written; the next write waits for the end of that one, also that of another life. Locked
    /// while `entries` is.
    in_flight: Mutex<HashSet<PodUid>>,
    queue: WorkQueue,
    /// Wakes up whoever waits for a status.
    changed: watch::Sender<()>,
}

struct Entry {
    /// The pod as the source last gave it.
    pod: Arc<Pod>,
    /// The newest status.
    status: Arc<PodStatus>,
    /// What the apiserver has, as far as is known.
    sent: Arc<PodStatus>,
    /// The object that has it; none before a static pod has a mirror.
    sent_to: Option<PodUid>,
    /// The terminated sync is done: nothing more will follow.
    finished: bool,
    /// Since when there is something to write.
    changed_at: Option<Instant>,
    /// The source showed a status that may not be ours.
    unverified: bool,
    retry: Delay,
}

/// What to do for one pod next.
enum Next {
    Patch(StatusUpdate, Arc<PodStatus>),
    Delete(Arc<Pod>),
}

/// What was written, and onto which object.
struct Sent {
    object: PodUid,
    status: Arc<PodStatus>,
}

/// What became of it.
enum Done {
    Patched(Result<(), ApiError>, Sent),
    Deleted(Result<(), ApiError>),
}

impl StatusManager {
    /// A manager that writes to `sink` while [`run`](Self::run) runs.
    pub fn new(sink: Arc<dyn StatusSink>, pods: Arc<PodManager>) -> Self {
        Self {
            sink,
            pods,
            entries: Mutex::default(),
            ended_mirrors: EndedMirrors::default(),
            in_flight: Mutex::default(),
            queue: WorkQueue::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Whose statuses there are.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        self.entries.lock().keys().cloned().collect()
    }

    /// The newest status of a pod, written or not.
    pub fn get_pod_status(&self, uid: &str) -> Option<Arc<PodStatus>> {
        self.entries.lock().get(uid).map(|e| e.status.clone())
    }

    /// The status to go on from: the newest one, else what the API shows of this life. A manifest says nothing of how its
    /// pod is.
    pub fn status_before(&self, pod: &Arc<Pod>) -> Arc<PodStatus> {
        self.get_pod_status(&pod.uid()).unwrap_or_else(|| {
            let object = self.pods.api_object(pod);
            Arc::new(self.shown_of_this_life(pod, object.as_ref()))
        })
    }

    fn shown_of_this_life(&self, pod: &Pod, object: Option<&Arc<Pod>>) -> PodStatus {
        match object {
            Some(object) if self.ended_mirrors.contains(&object.uid()) => PodStatus::default(),
            Some(object) if pod.is_static() => without_made_up_ends(object.pod_status().clone()),
            Some(object) => object.pod_status().clone(),
            None => pod.pod_status().clone(),
        }
    }

    /// Whether the status that was set last says that the pod has ended.
    pub fn has_ended(&self, uid: &str) -> bool {
        let status = self.get_pod_status(uid);
        status.is_some_and(|status| phase::is_terminal(status.phase.as_deref().unwrap_or_default()))
    }

    /// The first status of a pod, or a later one, with which the wish comes true.
    pub async fn wait_for_status(&self, uid: &str, wish: impl Fn(&PodStatus) -> bool) -> Arc<PodStatus> {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(status) = self.get_pod_status(uid).filter(|status| wish(status)) {
                return status;
            }
            // The sender is this manager's own.
            let _ = changes.changed().await;
        }
    }

    /// Sets the status of a pod. One that says nothing new, or that a container which ended for good runs again, is
    /// dropped.
    pub fn set_pod_status(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.update(pod, status, false);
    }

    /// A readiness probe has come to another result (`SetContainerReadiness`). A container that is not known, or does not
    /// run, stays as it is.
    pub fn set_container_readiness(&self, uid: &PodUid, container_id: &str, ready: bool) {
        self.update_container(uid, container_id, |_, status| {
            status.ready = ready && status.started == Some(true);
        });
    }

    /// A startup probe has come to another result (`SetContainerStartup`). A container without a readiness probe is
    /// ready as soon as it has started.
    pub fn set_container_startup(&self, uid: &PodUid, container_id: &str, started: bool) {
        self.update_container(uid, container_id, |pod, status| {
            let mut containers = pod.containers().iter().chain(pod.init_containers());
            let is_probed = containers.any(|c| c.name == status.name && c.readiness_probe.is_some());
            status.started = Some(started);
            status.ready = started && (status.ready || !is_probed);
        });
    }

    fn update_container(
        &self,
        uid: &PodUid,
        container_id: &str,
        change: impl FnOnce(&Pod, &mut ContainerStatus),
    ) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let (pod, mut status) = (entry.pod.clone(), (*entry.status).clone());
        let Some(container) = find_running(&mut status, container_id) else { return };
        change(&pod, container);
        update_readiness_conditions(&pod, &mut status);
        if let Ok(Some(delay)) = entry.update(&pod, status, false) {
            self.queue.enqueue(uid.clone(), delay);
            self.changed.send_replace(());
        }
    }

    /// The pod has come to its very end: after this status its API object may be removed.
    pub fn terminate_pod(&self, pod: &Arc<Pod>) {
        let current = self.get_pod_status(&pod.uid()).map(|s| (*s).clone());
        let status = terminated_status(pod, current.unwrap_or_else(|| pod.pod_status().clone()));
        self.update(pod, status, true);
    }

    /// The source showed the pod anew.
    pub fn pod_updated(&self, pod: &Arc<Pod>) {
        if pod.is_mirror() {
            return self.mirror_updated(pod);
        }
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&pod.uid()) else { return };
        entry.pod = pod.clone();
        entry.unverified = true;
        if entry.can_be_deleted() {
            self.queue.enqueue(pod.uid(), Duration::ZERO);
        }
    }

    /// The apiserver showed the mirror of a static pod. A new one has to be told everything.
    fn mirror_updated(&self, mirror: &Arc<Pod>) {
        let Some(pod) = self.pods.pod_of_mirror(mirror) else { return };
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&pod.uid()) else { return };
        entry.unverified = true;
        if entry.sent_to.as_ref() != Some(&mirror.uid()) {
            self.queue.enqueue(pod.uid(), Duration::ZERO);
        }
    }

    /// Forgets all pods but those that `keep` says (`RemoveOrphanedStatuses`).
    pub fn remove_orphaned_statuses(&self, keep: impl Fn(&PodUid) -> bool) {
        for (_, entry) in self.entries.lock().extract_if(.., |uid, _| !keep(uid)) {
            self.note_ended_mirror(&entry);
        }
        self.ended_mirrors.retain(|mirror| self.pods.has_mirror(mirror));
    }

    /// A pod that is wanted again under its old UID has another life: what the one before came to says nothing of it.
    pub fn forget_finished(&self, uid: &str) {
        let mut entries = self.entries.lock();
        if entries.get(uid).is_some_and(|entry| entry.finished)
            && let Some(entry) = entries.remove(uid)
        {
            self.note_ended_mirror(&entry);
        }
    }

    /// What the mirror of a life that is forgotten shows stays there until the next life has a status.
    fn note_ended_mirror(&self, entry: &Entry) {
        if entry.finished && entry.pod.is_static() {
            entry.sent_to.iter().for_each(|mirror| self.ended_mirrors.insert(mirror.clone()));
        }
    }

    fn update(&self, pod: &Arc<Pod>, status: PodStatus, finished: bool) {
        let uid = pod.uid();
        let mut entries = self.entries.lock();
        let is_new = !entries.contains_key(&uid);
        let entry = entries.entry(uid.clone()).or_insert_with(|| {
            let object = self.pods.api_object(pod);
            Entry::new(pod, self.shown_of_this_life(pod, object.as_ref()), object)
        });
        match entry.update(pod, status, finished) {
            Ok(None) => {}
            Ok(Some(delay)) => self.queue.enqueue(uid, delay),
            Err(error) => {
                tracing::error!(pod = %pod.display_name(), %error, "status update dropped");
                if is_new {
                    // It began with what a mirror shows of an earlier life, and that mirror may go.
                    entries.remove(&uid);
                }
            }
        }
        self.changed.send_replace(());
    }

    /// Writes statuses until dropped; then at most the writes under way are lost, which the next start repeats.
    pub async fn run(self: Arc<Self>, safety: Arc<dyn PodDeletionSafetyProvider>) {
        let mut writes: JoinSet<(PodUid, Done)> = JoinSet::new();
        let mut waiting: VecDeque<PodUid> = VecDeque::new();
        let mut reconcile = tokio::time::interval(RECONCILE_PERIOD);
        loop {
            tokio::select! {
                due = self.queue.due(), if writes.len() < MAX_CONCURRENT_WRITES => waiting.extend(due),
                Some(done) = writes.join_next() => match done {
                    Ok((uid, done)) => self.complete_write(&uid, done),
                    Err(error) => tracing::error!(%error, "a status write ended abnormally"),
                },
                _ = reconcile.tick() => self.reconcile(),
            }
            while writes.len() < MAX_CONCURRENT_WRITES
                && let Some(uid) = waiting.pop_front()
            {
                let Some(next) = self.next_write(&uid, &*safety) else { continue };
                let sink = self.sink.clone();
                writes.spawn(async move {
                    let done = match next {
                        Next::Patch(update, status) => {
                            let sent = Sent { object: update.pod.uid(), status };
                            Done::Patched(sink.patch_status(&update).await, sent)
                        }
                        Next::Delete(pod) => Done::Deleted(sink.delete_pod(&pod).await),
                    };
                    (uid, done)
                });
            }
        }
    }

    /// What is to be written for a pod now, if anything is; marks it as under way.
    fn next_write(&self, uid: &PodUid, safety: &dyn PodDeletionSafetyProvider) -> Option<Next> {
        let could_run = safety.pod_could_have_running_containers(uid);
        let mut entries = self.entries.lock();
        let mut in_flight = self.in_flight.lock();
        if in_flight.contains(uid) {
            return None;
        }
        let entry = entries.get_mut(uid)?;
        // Without a mirror there is nothing to write to. Its arrival is told.
        let object = self.pods.api_object(&entry.pod)?;
        entry.address(&object);
        let merged = Arc::new(merge_pod_status(&entry.sent, &entry.status, could_run));
        if merged.phase != entry.status.phase {
            self.queue.enqueue(uid.clone(), HELD_BACK);
        }
        if let Some(patch) = status_patch(&object.uid(), &entry.sent, &merged) {
            in_flight.insert(uid.clone());
            let update = StatusUpdate { pod: object, status: merged.clone(), patch };
            return Some(Next::Patch(update, merged));
        }
        if entry.can_be_deleted() {
            in_flight.insert(uid.clone());
            return Some(Next::Delete(entry.pod.clone()));
        }
        None
    }

    fn complete_write(&self, uid: &PodUid, done: Done) {
        let mut entries = self.entries.lock();
        self.in_flight.lock().remove(uid);
        let Some(entry) = entries.get_mut(uid) else { return };
        let pod = entry.pod.display_name();
        match done {
            Done::Patched(Ok(()), sent) => {
                if let Some(since) = entry.changed_at.take() {
                    metrics::POD_STATUS_SYNC_DURATION.observe(since.elapsed().as_secs_f64());
                }
                if entry.sent_to == Some(sent.object) {
                    entry.sent = sent.status;
                }
                entry.retry.reset();
                // Something newer may have come in the meantime, or the object may go now.
                self.queue.enqueue(uid.clone(), Duration::ZERO);
            }
            // The mirror is gone; the pod runs on. Another mirror will come, or came while this one was written.
            Done::Patched(Err(ApiError::NotFound(_)), _) if entry.pod.is_static() => {
                entry.sent_to = None;
                self.queue.enqueue(uid.clone(), entry.retry.next());
            }
            // The source will tell. Until then it is known how the pod ended, or that it was never to begin.
            Done::Patched(Err(ApiError::NotFound(_)), _) => {}
            Done::Deleted(Ok(())) => {
                entries.remove(uid);
            }
            // NodeRestriction asks its own cache, which right after a start of the apiserver does not know every pod. Only the
            // source knows that it is gone, and then this entry goes too.
            Done::Deleted(Err(ApiError::NotFound(message) | ApiError::Conflict(message))) => {
                tracing::debug!(pod, message, "the apiserver has no such pod to delete");
                self.queue.enqueue(uid.clone(), entry.retry.next());
            }
            Done::Patched(Err(error), _) | Done::Deleted(Err(error)) => {
                let wait = match &error {
                    ApiError::TooManyRequests { retry_after: Some(wait), .. } => *wait,
                    _ => entry.retry.next(),
                };
                // What cannot be written as it is may have been made from a status that is there no more.
                entry.unverified |= !error.is_retryable();
                tracing::warn!(pod, %error, ?wait, "writing the status failed, trying again");
                self.queue.enqueue(uid.clone(), wait);
            }
        }
    }

    /// Compares statuses with what the source showed last, and repeats those that somebody has overwritten.
    fn reconcile(&self) {
        for (uid, entry) in self.entries.lock().iter_mut() {
            if self.in_flight.lock().contains(uid) || !std::mem::take(&mut entry.unverified) {
                continue;
            }
            let Some(object) = self.pods.api_object(&entry.pod) else { continue };
            let shown = object.pod_status();
            if !equal_by_kubelet(shown, &entry.sent) {
                entry.sent = Arc::new(shown.clone());
                self.queue.enqueue(uid.clone(), Duration::ZERO);
            }
        }
    }
}

impl Entry {
    fn new(pod: &Arc<Pod>, status: PodStatus, object: Option<Arc<Pod>>) -> Self {
        Self {
            pod: pod.clone(),
            sent: Arc::new(object.as_ref().unwrap_or(pod).pod_status().clone()),
            sent_to: object.map(|object| object.uid()),
            status: Arc::new(status),
            finished: false,
            changed_at: None,
            unverified: false,
            retry: Delay::new(RETRY.0, RETRY.1),
        }
    }

    /// From now on the status is written to this object. What an earlier one has is of no use for it.
    fn address(&mut self, object: &Pod) {
        let uid = object.uid();
        if self.sent_to.as_ref() != Some(&uid) {
            self.sent = Arc::new(object.pod_status().clone());
            self.sent_to = Some(uid);
        }
    }

    /// Takes a status in (`updateStatusInternal`). Answers how long it waits to be written, or nothing if it says nothing
    /// new; fails if it must not be true.
    fn update(
        &mut self,
        pod: &Arc<Pod>,
        status: PodStatus,
        finished: bool,
    ) -> Result<Option<Duration>, IllegalTransition> {
        check_container_state_transition(pod, &self.status, &status)?;
        let status = complete(pod, &self.status, status);
        let unchanged = equal_by_kubelet(&self.status, &status);
        let newly_finished = finished && !self.finished;
        self.finished |= finished;
        self.pod = newer(&self.pod, pod);
        if unchanged && !newly_finished {
            return Ok(None);
        }
        self.status = Arc::new(status);
        self.changed_at.get_or_insert_with(Instant::now);
        Ok(Some(self.delay()))
    }

    /// How long the newest status waits for the next one.
    fn delay(&self) -> Duration {
        let phase = self.status.phase.as_deref().unwrap_or_default();
        let ends = (phase::is_terminal(phase) || self.pod.is_deleting()) && !self.finished;
        let starts = phase == phase::PENDING && !shows_failure(&self.status);
        if ends || starts { COALESCE } else { Duration::ZERO }
    }

    /// Whether the API object may be removed (`canBeDeleted`): it is to go, nothing of the pod is left, and the world
    /// has been told how it ended.
    fn can_be_deleted(&self) -> bool {
        let told = phase::is_terminal(self.sent.phase.as_deref().unwrap_or_default());
        self.finished && told && self.pod.is_deleting() && !self.pod.is_mirror()
    }
}

fn find_running<'a>(status: &'a mut PodStatus, container_id: &str) -> Option<&'a mut ContainerStatus> {
    let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|container| {
        let is_running = container.state.as_ref().is_some_and(|s| s.running.is_some());
        is_running && container.container_id.as_deref() == Some(container_id)
    })
}

/// A pod that is deleted stays deleted: an update that was generated from an older object must not hide that.
fn newer(old: &Arc<Pod>, new: &Arc<Pod>) -> Arc<Pod> {
    if old.is_deleting() && !new.is_deleting() { old.clone() } else { new.clone() }
}

/// Whether a container waits for a reason that a user should see at once.
fn shows_failure(status: &PodStatus) -> bool {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let reasons = lists
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    reasons.into_iter().any(|reason| reason != "ContainerCreating" && reason != "PodInitializing")
}
