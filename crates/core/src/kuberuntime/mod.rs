//! The runtime manager: makes what the runtimes have of a pod equal to what its spec says
//! (upstream: `pkg/kubelet/kuberuntime`).

mod compute;
mod container;
mod dns;
mod environment;
mod gc;
mod image_manager;
mod in_flight;
mod kill;
mod labels;
mod manager;
mod pre_stop;
mod puller;
mod restart;
mod runtime_pod;
mod sandbox;
mod service_env;
mod sync_pod;
mod sync_result;
mod termination_order;

pub use compute::{
    ContainerToKill, KillReason, PodActions, SandboxChange, compute_pod_actions, pod_sandbox_changed,
};
pub use dns::DnsConfigurer;
pub use gc::{ContainerGc, GcPolicy};
pub use image_manager::{ImageManager, ImageManagerOptions, PullReport};
pub use labels::hash_container;
pub use manager::{KubeGenericRuntimeManager, RuntimeOptions};
pub use restart::{container_should_restart, should_container_be_restarted};
pub use runtime_pod::{RuntimeContainer, RuntimePod, RuntimeSandbox};
pub use sync_result::{PodSyncResult, SyncAction, SyncFailure, SyncStep};
