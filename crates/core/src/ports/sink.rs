//! Where status and events go.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};

use super::ApiError;

/// A new status of one pod.
#[derive(Clone, Debug)]
pub struct StatusUpdate {
    /// The pod as the source last gave it; tells namespace, name and UID.
    pub pod: Arc<Pod>,
    /// The whole new status.
    pub status: Arc<PodStatus>,
    /// What differs from the status last sent, as a strategic merge patch of the pod with its UID as precondition.
    pub patch: serde_json::Value,
}

/// Takes what the status manager has to say. Called for one pod by one task at a time.
#[async_trait]
pub trait StatusSink: Send + Sync {
    /// Writes a status. `Conflict` and `NotFound` mean that this pod (by UID) is no more.
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError>;

    /// Removes the API object for good: grace period 0, UID as precondition. Neither `Conflict` nor `NotFound` proves that it
    /// is gone: an apiserver that has just started says so about pods that it will hear of.
    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError>;
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// For the record.
    Normal,
    /// Something a user should look at.
    Warning,
}

impl EventType {
    /// The value of `Event.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// To what.
    pub object: ObjectReference,
    /// How bad it is.
    pub event_type: EventType,
    /// One CamelCase word from upstream's list.
    pub reason: Cow<'static, str>,
    /// One line for a person.
    pub message: String,
}

/// Takes events. Never blocks and never fails: an event that cannot be kept is dropped and counted.
pub trait EventSink: Send + Sync {
    /// Records an event.
    fn record(&self, event: EventRecord);
}
