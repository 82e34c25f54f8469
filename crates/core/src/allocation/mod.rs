//! Which resources pods have been given, and how those change while they run (upstream: `pkg/kubelet/allocation`).
//!
//! A pod has resources three times: what its spec asks for, what this node has allocated to it, and what its runtime
//! was told last (actuated). A resize moves the first to the second if there is room, and the second to the third.

mod checkpoint;
mod conditions;
mod feasible;
mod manager;
mod messages;
mod requirements;
mod state;

use std::path::Path;

pub use checkpoint::CheckpointError;
pub use conditions::ResizeConditions;
pub(crate) use conditions::{ERROR, INFEASIBLE};
pub use feasible::check_resize;
pub(crate) use feasible::restarts_for;
pub(crate) use manager::update_from_allocation;
pub use manager::{AllocationHost, Manager};
pub use messages::ResizeMessage;
pub use requirements::{Amounts, effective_limits, requirements_equal};
pub use state::{PodResourceInfo, State, resource_info_for_pod};

/// What is remembered of pods' resources. Clones share it.
#[derive(Clone)]
pub struct States {
    /// What pods were given.
    pub allocated: State,
    /// What runtimes were told.
    pub actuated: State,
}

impl States {
    /// Keeps them in the files that the Go kubelet has for them, and goes on from what is there.
    pub fn open(root_dir: &Path) -> Result<Self, CheckpointError> {
        Ok(Self {
            allocated: State::open(root_dir.join("allocated_pods_state"))?,
            actuated: State::open(root_dir.join("actuated_pods_state"))?,
        })
    }

    /// Keeps them while the process lives.
    pub fn in_memory() -> Self {
        Self { allocated: State::in_memory(), actuated: State::in_memory() }
    }
}
