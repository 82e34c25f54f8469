//! What is known of the runtime's sandboxes and containers, in the order in which it came about.
//!
//! CRI has no revisions, and answers overtake each other. So whoever asks the runtime begins a [`Look`] first, and what
//! comes of it counts for an object only if that has not changed since the look began, or if it has gone further in
//! its life, which only has one direction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use coracle_provider::{
    ContainerState, ContainerStatus, Event, Revision, RevisionCounter, SandboxState, SandboxStatus, Snapshot,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Events that a slow subscriber can be behind by before it has to list.
const EVENTS: usize = 1024;

pub(crate) struct Table {
    inner: Mutex<Inner>,
    revisions: RevisionCounter,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Inner {
    sandboxes: HashMap<String, Arc<SandboxStatus>>,
    containers: HashMap<String, Arc<ContainerStatus>>,
    /// What was removed, as long as a look is under way that may have seen it.
    removed: HashMap<String, Revision>,
    looks: BTreeMap<u64, Revision>,
    next_look: u64,
}

/// A question to the runtime, from before it is asked.
pub(crate) struct Look<'a> {
    table: &'a Table,
    number: u64,
    began: Revision,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut inner = self.table.inner.lock();
        inner.looks.remove(&self.number);
        let oldest = inner.looks.values().min().copied();
        inner.removed.retain(|_, revision| oldest.is_some_and(|began| *revision > began));
    }
}

/// Everything that a list answered, with the full status of what is news.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) sandboxes: Vec<SandboxStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
    /// All ids that were listed.
    pub(crate) ids: HashSet<String>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        Self { inner: Mutex::default(), revisions: RevisionCounter::from_clock(), events }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Begins a look at the runtime.
    pub(crate) fn look(&self) -> Look<'_> {
        let mut inner = self.inner.lock();
        let (number, began) = (inner.next_look, self.revisions.current());
        inner.next_look += 1;
        inner.looks.insert(number, began);
        Look { table: self, number, began }
    }

    pub(crate) fn sandbox(&self, id: &str) -> Option<Arc<SandboxStatus>> {
        self.inner.lock().sandboxes.get(id).cloned()
    }

    pub(crate) fn container(&self, id: &str) -> Option<Arc<ContainerStatus>> {
        self.inner.lock().containers.get(id).cloned()
    }

    /// The sandbox that this pod was given with this attempt.
    pub(crate) fn sandbox_of(&self, pod_uid: &str, attempt: u32) -> Option<Arc<SandboxStatus>> {
        let inner = self.inner.lock();
        inner.sandboxes.values().find(|it| it.pod.uid == pod_uid && it.attempt == attempt).cloned()
    }

    /// The container of this name and attempt in this sandbox.
    pub(crate) fn container_of(
        &self,
        sandbox_id: &str,
        name: &str,
        attempt: u32,
    ) -> Option<Arc<ContainerStatus>> {
        let is_it = |it: &&Arc<ContainerStatus>| {
            it.sandbox_id == sandbox_id && it.name == name && it.attempt == attempt
        };
        self.inner.lock().containers.values().find(is_it).cloned()
    }

    /// Everything, or everything of one pod.
    pub(crate) fn snapshot(&self, pod_uid: Option<&str>) -> Snapshot {
        let inner = self.inner.lock();
        let is_wanted = |uid: &str| pod_uid.is_none_or(|wanted| wanted == uid);
        Snapshot {
            revision: self.revisions.current(),
            sandboxes: inner.sandboxes.values().filter(|it| is_wanted(&it.pod.uid)).cloned().collect(),
            containers: inner.containers.values().filter(|it| is_wanted(&it.pod.uid)).cloned().collect(),
        }
    }

    /// Takes in how a sandbox was seen, and answers how it is; nothing if it has been removed.
    pub(crate) fn see_sandbox(&self, look: &Look<'_>, status: SandboxStatus) -> Option<Arc<SandboxStatus>> {
        let mut inner = self.inner.lock();
        self.put_sandbox(&mut inner, look.began, status)
    }

    /// Takes in how a container was seen, and answers how it is; nothing if it has been removed.
    pub(crate) fn see_container(
        &self,
        look: &Look<'_>,
        status: ContainerStatus,
    ) -> Option<Arc<ContainerStatus>> {
        let mut inner = self.inner.lock();
        self.put_container(&mut inner, look.began, status)
    }

    /// Takes in a list of everything, or of one pod: what is not in it is gone. Containers come before the end of their
    /// sandboxes, and after their beginning.
    pub(crate) fn see_all(&self, look: &Look<'_>, pod_uid: Option<&str>, seen: Seen) {
        let mut inner = self.inner.lock();
        let (alive, ended): (Vec<_>, Vec<_>) =
            seen.sandboxes.into_iter().partition(|it| it.state == SandboxState::Ready);
        for sandbox in alive {
            self.put_sandbox(&mut inner, look.began, sandbox);
        }
        for container in seen.containers {
            self.put_container(&mut inner, look.began, container);
        }
        for sandbox in ended {
            self.put_sandbox(&mut inner, look.began, sandbox);
        }
        let is_gone = |id: &String, uid: &str, revision: Revision| {
            pod_uid.is_none_or(|wanted| wanted == uid) && revision <= look.began && !seen.ids.contains(id)
        };
        let gone = |it: &&Arc<ContainerStatus>| is_gone(&it.id, &it.pod.uid, it.revision);
        let containers: Vec<_> = inner.containers.values().filter(gone).map(|it| it.id.clone()).collect();
        let gone = |it: &&Arc<SandboxStatus>| is_gone(&it.id, &it.pod.uid, it.revision);
        let sandboxes: Vec<_> = inner.sandboxes.values().filter(gone).map(|it| it.id.clone()).collect();
        for id in containers {
            self.take_container(&mut inner, &id);
        }
        for id in sandboxes {
            self.take_sandbox(&mut inner, &id);
        }
    }

    /// A container has been removed. Answers when.
    pub(crate) fn remove_container(&self, id: &str) -> Revision {
        let mut inner = self.inner.lock();
        self.take_container(&mut inner, id);
        self.revisions.current()
    }

    /// A sandbox has been removed, and its containers with it. Answers when.
    pub(crate) fn remove_sandbox(&self, id: &str) -> Revision {
        let mut inner = self.inner.lock();
        let inside = inner.containers.values().filter(|it| it.sandbox_id == id);
        for container in inside.map(|it| it.id.clone()).collect::<Vec<_>>() {
            self.take_container(&mut inner, &container);
        }
        self.take_sandbox(&mut inner, id);
        self.revisions.current()
    }

    fn put_sandbox(
        &self,
        inner: &mut Inner,
        began: Revision,
        mut status: SandboxStatus,
    ) -> Option<Arc<SandboxStatus>> {
        if inner.removed.get(&status.id).is_some_and(|removed| *removed > began) {
            return None;
        }
        if let Some(known) = inner.sandboxes.get(&status.id) {
            let further = known.state == SandboxState::Ready && status.state == SandboxState::NotReady;
            let back = known.state == SandboxState::NotReady && status.state == SandboxState::Ready;
            status.revision = known.revision;
            // What has stopped has no addresses any more; who had them is still of interest.
            if status.network.ips.is_empty() {
                status.network = known.network.clone();
            }
            if back || status == **known || (known.revision > began && !further) {
                return Some(known.clone());
            }
        }
        status.revision = self.revisions.next();
        let status = Arc::new(status);
        inner.sandboxes.insert(status.id.clone(), status.clone());
        self.tell(Event::Sandbox(status.clone()));
        Some(status)
    }

    fn put_container(
        &self,
        inner: &mut Inner,
        began: Revision,
        mut status: ContainerStatus,
    ) -> Option<Arc<ContainerStatus>> {
        if inner.removed.get(&status.id).is_some_and(|removed| *removed > began) {
            return None;
        }
        if let Some(known) = inner.containers.get(&status.id) {
            let (before, now) = (age(known.state), age(status.state));
            status.revision = known.revision;
            if now < before || status == **known || (known.revision > began && now == before) {
                return Some(known.clone());
            }
            if known.state == ContainerState::Created
                && status.state == ContainerState::Exited
                && status.started_at.is_some()
            {
                self.insert_container(inner, running(&status));
            }
        }
        Some(self.insert_container(inner, status))
    }

    fn insert_container(&self, inner: &mut Inner, mut status: ContainerStatus) -> Arc<ContainerStatus> {
        status.revision = self.revisions.next();
        let status = Arc::new(status);
        inner.containers.insert(status.id.clone(), status.clone());
        self.tell(Event::Container(status.clone()));
        status
    }

    fn take_container(&self, inner: &mut Inner, id: &str) {
        let Some(status) = inner.containers.remove(id) else { return };
        let revision = self.revisions.next();
        inner.removed.insert(id.to_owned(), revision);
        self.tell(Event::ContainerRemoved { pod: status.pod.clone(), id: id.to_owned(), revision });
    }

    fn take_sandbox(&self, inner: &mut Inner, id: &str) {
        let Some(status) = inner.sandboxes.remove(id) else { return };
        let revision = self.revisions.next();
        inner.removed.insert(id.to_owned(), revision);
        self.tell(Event::SandboxRemoved { pod: status.pod.clone(), id: id.to_owned(), revision });
    }

    /// Under the lock, so that events come in their order. Nobody has to listen.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// How far in its life a container is. A runtime that cannot tell may know again later, but never that it does not run yet.
fn age(state: ContainerState) -> u8 {
    match state {
        ContainerState::Created => 0,
        ContainerState::Running | ContainerState::Unknown => 1,
        ContainerState::Exited => 2,
    }
}

/// How a container was between its start and an end that came before anybody looked.
fn running(ended: &ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        state: ContainerState::Running,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        ..ended.clone()
    }
}

#[cfg(test)]
mod tests;
