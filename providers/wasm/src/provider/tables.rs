//! What there is: sandboxes, containers, and the order in which they changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coracle_provider::{
    ContainerState, ContainerStatus, Event, EventStream, Resources, Result, Revision, RevisionCounter,
    SandboxStatus, Snapshot,
};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::container::Container;
use super::sandbox::Sandbox;
use super::{no_sandbox, not_ready};

/// Events that a subscriber may be behind. Beyond that it is told to list.
const BACKLOG: usize = 4096;

/// All sandboxes and containers. Everything that changes one takes its revision, shows its new state and sends its
/// event under the one lock, so that revisions, lists and events agree.
pub(super) struct Tables {
    objects: Mutex<Objects>,
    revisions: RevisionCounter,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Objects {
    sandboxes: HashMap<String, Arc<Sandbox>>,
    containers: HashMap<String, Arc<Container>>,
    /// By pod UID: the ids of what belongs to it.
    pods: HashMap<String, Members>,
}

#[derive(Default)]
struct Members {
    sandboxes: BTreeSet<String>,
    containers: BTreeSet<String>,
}

impl Tables {
    pub(super) fn new() -> Self {
        let (events, _) = broadcast::channel(BACKLOG);
        Self { objects: Mutex::default(), revisions: RevisionCounter::from_clock(), events }
    }

    pub(super) fn subscribe(&self) -> EventStream {
        BroadcastStream::new(self.events.subscribe())
            .map(|event| match event {
                Ok(event) => event,
                Err(BroadcastStreamRecvError::Lagged(_)) => Event::Lagged,
            })
            .boxed()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revisions.current()
    }

    pub(super) fn list(&self) -> Snapshot {
        let objects = self.objects.lock();
        Snapshot {
            revision: self.revisions.current(),
            sandboxes: objects.sandboxes.values().map(|sandbox| sandbox.status()).collect(),
            containers: objects.containers.values().map(|container| container.status()).collect(),
        }
    }

    pub(super) fn list_pod(&self, uid: &str) -> Snapshot {
        let objects = self.objects.lock();
        let (sandboxes, containers) = objects.of_pod(uid);
        Snapshot {
            revision: self.revisions.current(),
            sandboxes: sandboxes.iter().map(|sandbox| sandbox.status()).collect(),
            containers: containers.iter().map(|container| container.status()).collect(),
        }
    }

    pub(super) fn sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.objects.lock().sandboxes.get(id).cloned()
    }

    /// All sandboxes, or those of one pod.
    pub(super) fn sandboxes(&self, pod_uid: Option<&str>) -> Vec<Arc<Sandbox>> {
        let objects = self.objects.lock();
        match pod_uid {
            Some(uid) => objects.of_pod(uid).0,
            None => objects.sandboxes.values().cloned().collect(),
        }
    }

    pub(super) fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.objects.lock().containers.get(id).cloned()
    }

    /// The sandbox that was made for this attempt of a pod.
    pub(super) fn sandbox_of(&self, pod_uid: &str, attempt: u32) -> Option<Arc<Sandbox>> {
        let (sandboxes, _) = self.objects.lock().of_pod(pod_uid);
        sandboxes.into_iter().find(|sandbox| sandbox.status().attempt == attempt)
    }

    /// The containers of a sandbox.
    pub(super) fn containers_in(&self, sandbox: &Sandbox) -> Vec<Arc<Container>> {
        let (_, mut containers) = self.objects.lock().of_pod(&sandbox.status().pod.uid);
        containers.retain(|container| container.status().sandbox_id == sandbox.id);
        containers
    }

    /// The containers that run: all, or those of one pod.
    pub(super) fn running(&self, pod_uid: Option<&str>) -> Vec<Arc<Container>> {
        let objects = self.objects.lock();
        let mut containers = match pod_uid {
            Some(uid) => objects.of_pod(uid).1,
            None => objects.containers.values().cloned().collect(),
        };
        containers.retain(|container| container.status().state == ContainerState::Running);
        containers
    }

    /// Shows a new sandbox.
    pub(super) fn add_sandbox(&self, sandbox: Arc<Sandbox>) -> Arc<SandboxStatus> {
        let mut objects = self.objects.lock();
        let status = sandbox.status();
        objects.pods.entry(status.pod.uid.clone()).or_default().sandboxes.insert(sandbox.id.clone());
        objects.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        self.show_sandbox(&sandbox, (*status).clone())
    }

    /// Shows a new container, unless its sandbox was stopped or removed meanwhile.
    pub(super) fn add_container(&self, container: Arc<Container>) -> Result<Arc<ContainerStatus>> {
        let mut objects = self.objects.lock();
        let status = container.status();
        let sandbox =
            objects.sandboxes.get(&status.sandbox_id).ok_or_else(|| no_sandbox(&status.sandbox_id))?;
        sandbox.net().ok_or_else(|| not_ready(&sandbox.id))?;
        Ok(self.insert_container(&mut objects, container))
    }

    /// Adds what an earlier life of the provider left, without asking whether its sandbox is there.
    pub(super) fn restore(&self, sandboxes: Vec<Arc<Sandbox>>, containers: Vec<Arc<Container>>) {
        for sandbox in sandboxes {
            self.add_sandbox(sandbox);
        }
        let mut objects = self.objects.lock();
        for container in containers {
            self.insert_container(&mut objects, container);
        }
    }

    fn insert_container(&self, objects: &mut Objects, container: Arc<Container>) -> Arc<ContainerStatus> {
        let status = container.status();
        objects.pods.entry(status.pod.uid.clone()).or_default().containers.insert(container.id.clone());
        objects.containers.insert(container.id.clone(), container.clone());
        self.show_container(&container, (*status).clone())
    }

    /// Shows a new state of a sandbox.
    pub(super) fn update_sandbox(&self, sandbox: &Sandbox, status: SandboxStatus) -> Arc<SandboxStatus> {
        let _objects = self.objects.lock();
        self.show_sandbox(sandbox, status)
    }

    /// Shows a new state of a container.
    pub(super) fn update_container(
        &self,
        container: &Container,
        status: ContainerStatus,
    ) -> Arc<ContainerStatus> {
        let _objects = self.objects.lock();
        self.show_container(container, status)
    }

    /// Shows other resources of a container; none if it does not run, for then nothing of it changes but its end.
    pub(super) fn set_resources(
        &self,
        container: &Container,
        resources: Resources,
    ) -> Option<Arc<ContainerStatus>> {
        let _objects = self.objects.lock();
        let status = container.status();
        let running = status.state == ContainerState::Running;
        running.then(|| self.show_container(container, ContainerStatus { resources, ..(*status).clone() }))
    }

    pub(super) fn remove_sandbox(&self, id: &str) -> Revision {
        let mut objects = self.objects.lock();
        let Some(sandbox) = objects.sandboxes.remove(id) else { return self.revisions.current() };
        let pod = sandbox.status().pod.clone();
        objects.forget(&pod.uid, |members| members.sandboxes.remove(id));
        let revision = self.revisions.next();
        self.send(Event::SandboxRemoved { pod, id: id.into(), revision });
        revision
    }

    pub(super) fn remove_container(&self, id: &str) -> Revision {
        let mut objects = self.objects.lock();
        let Some(container) = objects.containers.remove(id) else { return self.revisions.current() };
        let pod = container.status().pod.clone();
        objects.forget(&pod.uid, |members| members.containers.remove(id));
        let revision = self.revisions.next();
        self.send(Event::ContainerRemoved { pod, id: id.into(), revision });
        revision
    }

    fn show_sandbox(&self, sandbox: &Sandbox, mut status: SandboxStatus) -> Arc<SandboxStatus> {
        status.revision = self.revisions.next();
        let status = Arc::new(status);
        sandbox.show(status.clone());
        self.send(Event::Sandbox(status.clone()));
        status
    }

    fn show_container(&self, container: &Container, mut status: ContainerStatus) -> Arc<ContainerStatus> {
        status.revision = self.revisions.next();
        let status = Arc::new(status);
        container.show(status.clone());
        self.send(Event::Container(status.clone()));
        status
    }

    fn send(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

impl Objects {
    fn of_pod(&self, uid: &str) -> (Vec<Arc<Sandbox>>, Vec<Arc<Container>>) {
        let Some(members) = self.pods.get(uid) else { return Default::default() };
        (
            members.sandboxes.iter().filter_map(|id| self.sandboxes.get(id)).cloned().collect(),
            members.containers.iter().filter_map(|id| self.containers.get(id)).cloned().collect(),
        )
    }

    fn forget(&mut self, uid: &str, remove: impl FnOnce(&mut Members) -> bool) {
        if let Some(members) = self.pods.get_mut(uid) {
            remove(members);
            if members.sandboxes.is_empty() && members.containers.is_empty() {
                self.pods.remove(uid);
            }
        }
    }
}
