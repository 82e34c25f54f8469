//! Runtimes to test with.

#![allow(unreachable_pub)]

use std::sync::Arc;

use coracle_provider::{ContainerState, ContainerStatus, PodNetwork, SandboxState, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::labels;
use super::runtime_pod::{RuntimeContainer, RuntimePod, RuntimeSandbox};
use crate::pod::PodExt;

/// The provider that everything is with.
pub const PROVIDER: &str = "p";

/// A sandbox that is as it should be, and all containers of the pod, running. Containers have their names as ids.
pub fn runtime_of(pod: &Pod) -> RuntimePod {
    let mut runtime = RuntimePod::empty(pod.uid());
    runtime.sandboxes.push(RuntimeSandbox {
        provider: PROVIDER,
        status: Arc::new(SandboxStatus {
            id: "s".into(),
            pod: pod.pod_ref(),
            attempt: 0,
            state: SandboxState::Ready,
            created_at: Timestamp::UNIX_EPOCH,
            network: PodNetwork { ips: vec!["10.0.0.1".parse().unwrap()], ..PodNetwork::default() },
            labels: Default::default(),
            annotations: Default::default(),
            runtime_handler: String::new(),
            revision: Default::default(),
        }),
    });
    runtime.containers.extend(pod.all_containers().iter().map(|container| running(pod, container)));
    runtime
}

/// A container that runs.
pub fn running(pod: &Pod, container: &Container) -> RuntimeContainer {
    let status = ContainerStatus {
        id: container.name.clone(),
        sandbox_id: "s".into(),
        pod: pod.pod_ref(),
        name: container.name.clone(),
        attempt: 0,
        state: ContainerState::Running,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: coracle_provider::ImageSpec::new("i"),
        image_id: String::new(),
        labels: Default::default(),
        annotations: labels::container_annotations(container, pod, 0),
        mounts: Vec::new(),
        log_path: Default::default(),
        resources: Default::default(),
        revision: Default::default(),
    };
    RuntimeContainer { provider: PROVIDER, status: Arc::new(status) }
}

/// Changes the newest instance of a container.
pub fn change(runtime: &mut RuntimePod, name: &str, change: impl FnOnce(&mut ContainerStatus)) {
    let container = runtime.containers.iter_mut().find(|c| c.name == name).unwrap();
    change(Arc::make_mut(&mut container.status));
}

/// Ends a container.
pub fn exit(runtime: &mut RuntimePod, name: &str, code: i32) {
    change(runtime, name, |status| {
        status.state = ContainerState::Exited;
        status.exit_code = code;
    });
}

/// Makes the runtime forget containers.
pub fn remove(runtime: &mut RuntimePod, names: &[&str]) {
    runtime.containers.retain(|c| !names.contains(&c.name.as_str()));
}
