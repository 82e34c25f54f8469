//! What only Linux knows about the machine that a node is.

mod address;
mod cgroups;
mod error;
mod files;
mod interfaces;
mod machine;
mod usage;

pub use address::{is_own_address, node_addresses};
pub use cgroups::Cgroups;
pub use error::NodeError;
pub use machine::{has_apparmor, hostname, machine_info};
pub use usage::NodeUsageReader;
