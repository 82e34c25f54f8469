//! The status of pods: generated from what the runtimes have, merged, and written to the apiserver
//! (upstream: `pkg/kubelet/status`, and the status half of `kubelet_pods.go`).

mod conditions;
mod container_statuses;
mod ended_mirrors;
mod generate;
mod manager;
mod merge;
mod patch;
mod phase;
mod resources;
mod terminate;
#[cfg(test)]
mod tests;

pub(crate) use conditions::needs_to_reconcile_readiness;
pub use generate::{StatusInput, generate_api_pod_status};
pub use manager::{PodDeletionSafetyProvider, StatusManager};
