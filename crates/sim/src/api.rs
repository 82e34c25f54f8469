//! An apiserver: pods by name, each with a UID, a version and its own deletion; patches with preconditions; watches
//! that lag, repeat themselves and break off.

mod patch;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::clock;
use coracle_core::pod::{PodExt, phase};
use coracle_core::ports::{
    ApiError, EventRecord, EventSink, ObjectKey, ObjectReader, StatusSink, StatusUpdate,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{
    ConfigMap, ContainerState, ContainerStatus, Node, Pod, PodStatus, Secret, Service,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use crate::dice::Dice;
use crate::faults::Faults;
use crate::history::{Fact, History};

/// One thing that a watch tells.
#[derive(Clone)]
enum Notice {
    Changed(Arc<Pod>),
    Gone(Arc<Pod>),
}

impl Notice {
    fn pod(&self) -> &Arc<Pod> {
        match self {
            Self::Changed(pod) | Self::Gone(pod) => pod,
        }
    }
}

/// The apiserver, and all that the agent asks of a cluster.
pub(crate) struct Api {
    state: Mutex<State>,
    dice: Dice,
    faults: Arc<Faults>,
    history: Arc<History>,
    objects: broadcast::Sender<ObjectKey>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Arc<Pod>>,
    version: u64,
    watches: Vec<mpsc::UnboundedSender<Notice>>,
    patches: usize,
}

impl Api {
    pub(crate) fn new(dice: Dice, faults: Arc<Faults>, history: Arc<History>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), dice, faults, history, objects: broadcast::channel(1).0 })
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.state.lock().pods.values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Pod>> {
        self.state.lock().pods.get(name).cloned()
    }

    /// How many statuses were written.
    pub(crate) fn patches(&self) -> usize {
        self.state.lock().patches
    }

    /// A user makes a pod. Its name is free.
    pub(crate) fn create(&self, pod: Pod) {
        let pod = self.put(&mut self.state.lock(), pod);
        self.history.tell(&pod.uid(), Fact::Created(pod.clone()));
    }

    /// A user deletes a pod, gracefully unless it has ended (`CheckGracefulDelete`); again, and the time gets shorter.
    pub(crate) fn delete(&self, name: &str, grace: i64) {
        let Some(pod) = self.get(name) else { return };
        let uid = pod.uid();
        self.history.note(&uid, format!("a user deletes it, with {grace} s"));
        if grace == 0 || phase::is_terminal(pod.phase()) {
            self.remove(&pod, false);
            return;
        }
        let mut pod = (*pod).clone();
        let meta = &mut pod.metadata;
        if meta.deletion_grace_period_seconds.is_some_and(|old| old <= grace) {
            return;
        }
        if meta.deletion_timestamp.is_none() {
            meta.generation = Some(meta.generation.unwrap_or_default() + 1);
        }
        let at = clock::now().checked_add(SignedDuration::from_secs(grace)).unwrap_or(clock::now());
        meta.deletion_timestamp = Some(Time(at));
        meta.deletion_grace_period_seconds = Some(grace);
        self.put(&mut self.state.lock(), pod);
    }

    /// A user, or a controller, changes a pod.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        let Some(pod) = self.get(name) else { return };
        let mut pod = (*pod).clone();
        change(&mut pod);
        let unwanted = pod.metadata.deletion_grace_period_seconds == Some(0);
        let has_finalizers = pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
        let pod = self.put(&mut self.state.lock(), pod);
        if unwanted && !has_finalizers {
            self.remove(&pod, false);
        }
    }

    /// Every watch breaks off.
    pub(crate) fn drop_watches(&self) {
        self.state.lock().watches.clear();
    }

    fn put(&self, state: &mut State, mut pod: Pod) -> Arc<Pod> {
        state.version += 1;
        pod.metadata.resource_version = Some(state.version.to_string());
        let pod = Arc::new(pod);
        state.pods.insert(pod.name().to_owned(), pod.clone());
        state.watches.retain(|watch| watch.send(Notice::Changed(pod.clone())).is_ok());
        pod
    }

    /// An object goes; one with finalizers waits for those.
    fn remove(&self, pod: &Arc<Pod>, by_agent: bool) {
        if pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()) {
            let mut pod = (**pod).clone();
            pod.metadata.deletion_timestamp.get_or_insert(Time(clock::now()));
            pod.metadata.deletion_grace_period_seconds = Some(0);
            self.put(&mut self.state.lock(), pod);
            return;
        }
        {
            let mut state = self.state.lock();
            state.version += 1;
            state.pods.remove(pod.name());
            state.watches.retain(|watch| watch.send(Notice::Gone(pod.clone())).is_ok());
        }
        self.history.tell(&pod.uid(), Fact::Gone { by_agent });
    }

    /// The object of this name, if it is the one with this UID.
    fn find(&self, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, ApiError> {
        let pod = self.get(name).ok_or_else(|| ApiError::NotFound(format!("pods {name:?} not found")))?;
        match uid {
            Some(uid) if *pod.uid() != *uid => {
                Err(ApiError::Conflict(format!("the UID in the precondition is {uid}, not {}", pod.uid())))
            }
            _ => Ok(pod),
        }
    }

    /// A call goes through, or not: before it does anything, or after.
    async fn call<T>(
        &self,
        uid: &str,
        what: &str,
        call: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        tokio::time::sleep(self.faults.api_delay(&self.dice)).await;
        if let Some(error) = self.faults.api_refusal(&self.dice) {
            self.history.note(uid, format!("api: {what} refused: {error}"));
            return Err(error);
        }
        let result = call();
        tokio::time::sleep(self.faults.api_delay(&self.dice)).await;
        if self.faults.api_loses_answer(&self.dice) {
            self.history.note(uid, format!("api: {what} was done, its answer is lost"));
            return Err(ApiError::Unavailable("timeout".to_owned()));
        }
        if let Err(error) = &result {
            self.history.note(uid, format!("api: {what}: {error}"));
        }
        result
    }

    fn patch(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        let wanted = update.patch.pointer("/metadata/uid").and_then(Value::as_str);
        let pod = self.find(update.pod.name(), wanted)?;
        let status = patch::merged(pod.pod_status(), &update.patch["status"]).map_err(ApiError::Invalid)?;
        self.state.lock().patches += 1;
        let fact = Fact::Patched {
            onto: pod.uid().to_string(),
            phase: status.phase.clone().unwrap_or_default(),
            restarts: restarts(&status),
            running: ids(&status, |state| state.running.as_ref().map(|_| None)),
            ended: ids(&status, |state| state.terminated.as_ref().map(|ended| ended.container_id.clone())),
        };
        self.put(&mut self.state.lock(), Pod { status: Some(status), ..(*pod).clone() });
        self.history.tell(&update.pod.uid(), fact);
        Ok(())
    }
}

fn restarts(status: &PodStatus) -> Vec<(String, i32)> {
    containers(status).map(|c| (c.name.clone(), c.restart_count)).collect()
}

/// The ids of containers in a state; `is_in` may know the id better than the status as a whole does.
fn ids(status: &PodStatus, is_in: impl Fn(&ContainerState) -> Option<Option<String>>) -> Vec<String> {
    containers(status).filter_map(|c| is_in(c.state.as_ref()?)?.or_else(|| c.container_id.clone())).collect()
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten()
}

#[async_trait]
impl StatusSink for Api {
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        self.call(&update.pod.uid(), "a status", || self.patch(update)).await
    }

    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        let uid = pod.uid();
        let delete = || match self.find(pod.name(), Some(&uid)) {
            Ok(pod) => {
                self.remove(&pod, true);
                Ok(())
            }
            Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        };
        self.call(&uid, "the last deletion", delete).await
    }
}

impl EventSink for Api {
    fn record(&self, event: EventRecord) {
        let uid = event.object.uid.unwrap_or_default();
        self.history.note(&uid, format!("event {}: {}", event.reason, event.message));
    }
}

#[async_trait]
impl ObjectReader for Api {
    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(ApiError::NotFound(format!("configmaps {name:?} not found")))
    }
    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(ApiError::NotFound(format!("secrets {name:?} not found")))
    }
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        let class = RuntimeClass { handler: name.to_owned(), ..RuntimeClass::default() };
        self.call("", "a RuntimeClass", || Ok(Arc::new(class))).await
    }
    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }
    fn node(&self) -> Option<Arc<Node>> {
        None
    }
    fn register_pod(&self, _pod: &Pod) {}
    fn unregister_pod(&self, _pod: &Pod) {}
    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.objects.subscribe()
    }
}

/// How long a watch or a list may lag at most, for those who wait for it.
pub(crate) const WATCH_LAG: Duration = Duration::from_secs(4);
