//! What only pods of Linux containers are made with (upstream: `kuberuntime_sandbox_linux.go`,
//! `kuberuntime_container_linux.go`).

use std::sync::Arc;

use coracle_provider::{
    ArtifactKind, ImageSpec, LinuxContainerConfig, LinuxSandboxConfig, NamespaceMode, Provider, Resources,
    SandboxConfig,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::container::Sandbox;
use super::manager::KubeGenericRuntimeManager;
use super::runtime_pod::RuntimePod;
use super::security_context::{
    ImageUser, SeccompOptions, container_security, must_be_non_root, sandbox_security,
};
use crate::oom_score::container_oom_score_adjust;
use crate::pod::PodExt;
use crate::pod_resources::{self, PodResourcesOptions};

/// What is to be known of the machine.
#[derive(Clone, Debug, Default)]
pub struct LinuxOptions {
    /// Its memory, in bytes.
    pub memory_capacity: u64,
    /// Whether its kernel enforces AppArmor profiles.
    pub has_apparmor: bool,
    /// Profiles of system calls.
    pub seccomp: SeccompOptions,
}

impl KubeGenericRuntimeManager {
    /// Fills in what Linux needs of a sandbox.
    pub(super) fn complete_linux_sandbox(
        &self,
        pod: &Pod,
        config: &mut SandboxConfig,
    ) -> Result<(), coracle_provider::Error> {
        let parent = self.container_manager.as_ref().map(|manager| manager.pod_cgroup_parent(pod));
        let parent =
            parent.transpose().map_err(|error| coracle_provider::Error::invalid(error.to_string()))?;
        let sysctls = pod.pod_spec().security_context.as_ref().and_then(|context| context.sysctls.as_ref());
        config.resources = sandbox_resources(pod);
        config.overhead = overhead(pod);
        config.linux = LinuxSandboxConfig {
            // Without one, control groups of pods are the runtime's business.
            cgroup_parent: parent.unwrap_or_default(),
            sysctls: sysctls.into_iter().flatten().map(|it| (it.name.clone(), it.value.clone())).collect(),
            security: sandbox_security(pod),
        };
        Ok(())
    }

    /// What a container is made with on Linux, and the configuration of its sandbox. WebAssembly has files, and so a user and
    /// groups, and nothing else of it.
    pub(super) async fn linux_container(
        &self,
        pod: &Pod,
        container: &Container,
        image_ref: &str,
        sandbox: &Sandbox,
        runtime: &RuntimePod,
    ) -> Result<(LinuxContainerConfig, Arc<SandboxConfig>), String> {
        let status = &sandbox.status;
        let handler = status.runtime_handler.clone();
        let is_wasm = sandbox.provider.runs() != ArtifactKind::RootFs;
        // Where that is not to be verified, a provider of WebAssembly knows the user of its image by itself.
        let user = match is_wasm && !must_be_non_root(pod, container) {
            true => ImageUser::default(),
            false => image_user(&*sandbox.provider, image_ref, &handler).await?,
        };
        let mut security = container_security(pod, container, &user, &self.options.linux.seccomp)?;
        if is_wasm {
            return Ok((LinuxContainerConfig { security, ..Default::default() }, Default::default()));
        }
        if let Some(target) = target_container(pod, &container.name) {
            let found =
                runtime.find(target).ok_or_else(|| format!("unable to find target container {target}"))?;
            if security.pid_namespace == NamespaceMode::Container {
                security.pid_namespace = NamespaceMode::Target(found.id.clone());
            }
        }
        let oom_score_adj = container_oom_score_adjust(pod, container, self.options.linux.memory_capacity);
        let config = self.generate_pod_sandbox_config(pod, status.attempt, handler, &*sandbox.provider);
        let config = config.map_err(|error| error.to_string())?;
        Ok((LinuxContainerConfig { oom_score_adj, security }, Arc::new(config)))
    }
}

/// `getImageUser`.
async fn image_user(provider: &dyn Provider, image_ref: &str, handler: &str) -> Result<ImageUser, String> {
    let image = ImageSpec { image: image_ref.to_owned(), runtime_handler: handler.to_owned() };
    let found = provider.image_status(&image).await.map_err(|error| error.to_string())?;
    // An image without a user runs as root (`getImageUser`).
    let user = found.map(|it| ImageUser { uid: it.uid, username: it.username });
    let user = user.unwrap_or_default();
    let nobody = user.uid.is_none() && user.username.is_empty();
    Ok(if nobody { ImageUser { uid: Some(0), ..user } } else { user })
}

/// The container into whose processes an ephemeral one looks.
fn target_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let ephemeral = pod.pod_spec().ephemeral_containers.as_ref()?.iter().find(|it| it.name == name)?;
    ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// All that a pod's containers have together, without its overhead (`calculateSandboxResources`).
fn sandbox_resources(pod: &Pod) -> Resources {
    let options = PodResourcesOptions { exclude_overhead: true, ..PodResourcesOptions::default() };
    let without_overhead = || {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            spec.overhead = None;
        }
        pod
    };
    let requests = pod_resources::pod_requests(pod, options);
    let limits = pod_resources::pod_limits(&without_overhead());
    Resources {
        cpu_request_millis: millis(&requests),
        cpu_limit_millis: millis(&limits),
        memory_limit_bytes: bytes(&limits),
        memory_request_bytes: bytes(&requests),
    }
}

/// Requests and limits at once (`convertOverheadToLinuxResources`).
fn overhead(pod: &Pod) -> Resources {
    let overhead = pod_resources::parse(pod.pod_spec().overhead.as_ref());
    Resources {
        cpu_request_millis: millis(&overhead),
        cpu_limit_millis: millis(&overhead),
        memory_limit_bytes: bytes(&overhead),
        memory_request_bytes: bytes(&overhead),
    }
}

fn millis(amounts: &pod_resources::Resources) -> Option<u64> {
    amounts.get("cpu").and_then(|it| u64::try_from(it.milli_value()).ok()).filter(|millis| *millis > 0)
}

fn bytes(amounts: &pod_resources::Resources) -> Option<u64> {
    amounts.get("memory").and_then(|it| u64::try_from(it.value()).ok()).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sandbox_has_what_its_containers_have_together_and_the_overhead_beside_it() {
        let container = |cpu: &str| {
            json!({ "name": cpu, "image": "i", "resources": {
            "requests": { "cpu": cpu }, "limits": { "cpu": "1", "memory": "1Mi" } } })
        };
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "overhead": { "cpu": "10m", "memory": "2Mi" },
            "containers": [container("100m"), container("200m")],
        }}))
        .unwrap();
        let of_containers = sandbox_resources(&pod);
        assert_eq!(
            (of_containers.cpu_request_millis, of_containers.cpu_limit_millis),
            (Some(300), Some(2000))
        );
        assert_eq!(of_containers.memory_limit_bytes, Some(2 << 20));
        let overhead = overhead(&pod);
        assert_eq!((overhead.cpu_limit_millis, overhead.memory_limit_bytes), (Some(10), Some(2 << 20)));
    }
}
