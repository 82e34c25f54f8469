//! What a list answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::container::ContainerStatus;
use crate::revision::Revision;
use crate::sandbox::SandboxStatus;

/// Everything a provider has, of one pod or of all.
///
/// Whatever changed after [`revision`](Snapshot::revision) may or may not be in it; whatever changed up to then is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The newest change that is certainly in it.
    pub revision: Revision,
    /// The sandboxes, stopped ones included.
    pub sandboxes: Vec<Arc<SandboxStatus>>,
    /// The containers, ended ones included.
    pub containers: Vec<Arc<ContainerStatus>>,
}
