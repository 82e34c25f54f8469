//! An apiserver: pods by name, each with a UID, a version and its own deletion; patches with preconditions; watches
//! that lag, repeat themselves and break off.

mod mirrors;
mod objects;
mod patch;
mod source;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::clock;
use coracle_core::pod::{CONFIG_MIRROR_ANNOTATION, PodExt};
use coracle_core::ports::{ApiError, EventRecord, EventSink, ObjectKey, StatusSink, StatusUpdate};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use crate::checker::Violation;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::history::{BEGINNING, Fact, History, Shown};
use crate::pods::READINESS_GATE;

pub(crate) use objects::NODE_CPU;
pub(crate) use users::RESIZED;

/// What the message of a pod begins with that was not admitted.
const REJECTED: &str = "Pod was rejected: ";

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

/// The UID of the pod that an API object is about: its own, or that of the static pod that it mirrors.
pub(crate) fn subject(pod: &Pod) -> String {
    pod.annotation(CONFIG_MIRROR_ANNOTATION).map_or_else(|| pod.uid().to_string(), str::to_owned)
}

/// The apiserver, and all that the agent asks of a cluster.
pub(crate) struct Api {
    state: Mutex<State>,
    node: Arc<Node>,
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
    /// How many mirror pods were made.
    mirrors: usize,
}

impl Api {
    pub(crate) fn new(dice: Dice, faults: Arc<Faults>, history: Arc<History>) -> Arc<Self> {
        let (state, node, objects) = (Mutex::default(), objects::node(), broadcast::channel(1).0);
        Arc::new(Self { state, node, dice, faults, history, objects })
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
        if pod.is_mirror() {
            self.history.note(&subject(pod), format!("its mirror {} is gone", pod.uid()));
        } else {
            self.history.tell(&pod.uid(), Fact::Gone { by_agent });
        }
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
        if let Some(kind) = foreign_condition(pod.pod_status(), &status) {
            let (uid, message) = (subject(&pod), format!("{kind} was changed"));
            self.history.fail(Violation { rule: "conditions of others are kept", uid, message });
        }
        self.state.lock().patches += 1;
        let (uid, shown) = (subject(&update.pod), shown(&update.pod, &pod, &status));
        self.put(&mut self.state.lock(), Pod { status: Some(status), ..(*pod).clone() });
        self.history.tell(&uid, Fact::Patched(shown));
        Ok(())
    }
}

/// What a status for one object says that another one, maybe, has taken.
fn shown(meant: &Pod, taken: &Pod, status: &PodStatus) -> Shown {
    let is_same = meant.uid() == taken.uid();
    let since = |start: &Time| Duration::try_from(start.0.duration_since(BEGINNING)).unwrap_or_default();
    let message = status.message.as_deref().unwrap_or_default();
    Shown {
        onto: if is_same { subject(meant) } else { taken.uid().to_string() },
        phase: status.phase.clone().unwrap_or_default(),
        rejected: message.starts_with(REJECTED),
        started: status.start_time.as_ref().map(since),
        restarts: restarts(status),
        running: ids(status, |state| state.running.as_ref().map(|_| None)),
        ended: ids(status, |state| state.terminated.as_ref().map(|ended| ended.container_id.clone())),
    }
}

/// The first condition of somebody else that differs.
fn foreign_condition(old: &PodStatus, new: &PodStatus) -> Option<String> {
    let condition =
        |status: &PodStatus| status.conditions.iter().flatten().find(|c| c.type_ == READINESS_GATE).cloned();
    (condition(old) != condition(new)).then(|| READINESS_GATE.to_owned())
}

fn restarts(status: &PodStatus) -> Vec<(String, i32)> {
    containers(status).map(|c| (c.name.clone(), c.restart_count)).collect()
}

/// The ids of containers in a state; `is_in` may know the id better than the status as a whole does.
fn ids(status: &PodStatus, is_in: impl Fn(&ContainerState) -> Option<Option<String>>) -> Vec<String> {
    containers(status).filter_map(|c| is_in(c.state.as_ref()?)?.or_else(|| c.container_id.clone())).collect()
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten()
}

#[async_trait]
impl StatusSink for Api {
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        self.call(&subject(&update.pod), "a status", || self.patch(update)).await
    }

    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        let uid = pod.uid();
        let delete = || {
            if self.faults.api_has_not_heard(&self.dice) {
                return Err(ApiError::NotFound(format!("pods {:?} not found", pod.name())));
            }
            let pod = self.find(pod.name(), Some(&uid))?;
            self.remove(&pod, true);
            Ok(())
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

/// How long a watch or a list may lag at most, for those who wait for it.
pub(crate) const WATCH_LAG: Duration = Duration::from_secs(4);
