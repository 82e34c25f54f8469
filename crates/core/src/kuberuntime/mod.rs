//! The runtime manager: makes what the runtimes have of a pod equal to what its spec says
//! (upstream: `pkg/kubelet/kuberuntime`).

mod compute;
mod container;
mod dns;
mod env_file;
mod environment;
mod gc;
mod hostname;
mod hosts_file;
mod image_manager;
mod in_flight;
mod kill;
mod labels;
mod linux;
mod manager;
mod mounts;
mod pre_stop;
mod puller;
mod resize;
mod resize_cgroup;
mod restart;
mod runtime_pod;
mod sandbox;
mod security_context;
mod service_env;
mod sync_pod;
mod sync_result;
mod termination_message;
mod termination_order;
#[cfg(test)]
pub(crate) mod test_support;

pub use compute::{
    ComputeInput, ContainerToKill, ContainerToReset, ContainerToUpdate, KillReason, PodActions,
    SandboxChange, compute_pod_actions, is_pod_resize_in_progress, pod_sandbox_changed,
};
pub use dns::DnsConfigurer;
pub use gc::{ContainerGc, GcPolicy};
pub use image_manager::{ImageManager, ImageManagerOptions, PullReport};
pub use labels::hash_container;
pub use linux::LinuxOptions;
pub use manager::{KubeGenericRuntimeManager, RuntimeOptions};
pub use restart::{
    ALL_CONTAINERS_RESTARTING, all_containers_could_restart, all_containers_restart_cleaned_up,
    container_should_restart, is_restarting_all_containers, should_all_containers_restart,
    should_container_be_restarted, shows_restart_of_all_containers,
};
pub use runtime_pod::{RuntimeContainer, RuntimePod, RuntimeSandbox};
pub use security_context::SeccompOptions;
pub use sync_result::{PodSyncResult, SyncAction, SyncFailure, SyncStep};
