//! The bed of the system tests: a real control plane, a real registry and Coracle nodes on this machine, as a library.
//!
//! Everything here is blocking, because a test is a story told step by step. Processes end with the test process
//! however it ends, and folders are removed after them.

pub mod artifact;
pub mod audit;
pub mod certificates;
pub mod cluster;
pub mod containerd;
pub mod control_plane;
pub mod coracle;
pub mod guests;
pub mod http;
pub mod kube_proxy;
pub mod kubeconfig;
pub mod kubectl;
pub mod metrics_server;
pub mod network;
pub mod node;
pub mod process;
pub mod programs;
pub mod registry;
pub mod scratch;
pub mod wait;
