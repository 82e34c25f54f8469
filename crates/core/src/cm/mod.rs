//! The control groups of Linux pods (upstream: `pkg/kubelet/cm`): `kubepods` for all of them, one below it for each class
//! of service but the guaranteed one, and one for each pod. Pods of WebAssembly have none: they live in this process.
//!
//! What is to be is decided here; [`CgroupManager`](crate::ports::CgroupManager) makes it so.

mod manager;
mod name;
mod node_allocatable;
mod pods;
mod qos;
mod resource_config;

pub use manager::{ContainerManager, ContainerManagerOptions};
pub use name::{CgroupDriver, CgroupName};
pub use node_allocatable::{Enforcement, NodeAllocatable, ReservedResources};
pub use resource_config::{ResourceConfig, resource_config_for_pod};
