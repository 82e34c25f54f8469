//! This node at the apiserver: its Node object and its lease.

mod controller;
mod lease;
mod patch;
mod register;
mod watch;

pub use controller::{NodeController, NodeOptions};
pub use lease::LeaseController;
pub use watch::NodeWatch;
