//! What a provider tells unasked.

use std::sync::Arc;

use futures::stream::BoxStream;

use crate::container::ContainerStatus;
use crate::revision::Revision;
use crate::sandbox::{PodRef, SandboxStatus};

/// A change in a provider.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A sandbox is new or has another state.
    Sandbox(Arc<SandboxStatus>),
    /// A container is new or has another state.
    Container(Arc<ContainerStatus>),
    /// A sandbox is gone.
    SandboxRemoved {
        /// Whose.
        pod: PodRef,
        /// Its id.
        id: String,
        /// When.
        revision: Revision,
    },
    /// A container is gone.
    ContainerRemoved {
        /// Whose.
        pod: PodRef,
        /// Its id.
        id: String,
        /// When.
        revision: Revision,
    },
    /// Events were lost: only a list tells what holds.
    Lagged,
    /// Readiness of the provider may have changed: ask for its status.
    StatusChanged,
}

/// Events in the order of their revisions, from the moment of the subscription on.
pub type EventStream = BoxStream<'static, Event>;
