//! Containers.

use std::time::Duration;

use coracle_provider::{
    ContainerConfig, ContainerState, ContainerStatus, Error, ImageSpec, Mount, MountPropagation, PodRef,
    Resources, Result, Revision, SandboxStatus, cpu,
};

use super::linux::container_security;
use super::{
    POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL, optional_timestamp, path_text, timestamp, to_map,
};
use crate::bindings as cri;

/// Upstream's `ContainerConfig`, field by field (`generateContainerConfig`, `generateLinuxContainerConfig`).
pub(crate) fn container_config(
    config: &ContainerConfig,
    quota_period: Option<Duration>,
) -> Result<cri::ContainerConfig> {
    let linux = cri::LinuxContainerConfig {
        resources: Some(cri::LinuxContainerResources {
            oom_score_adj: config.linux.oom_score_adj,
            ..linux_resources(&config.resources, quota_period)
        }),
        security_context: Some(container_security(&config.linux.security, config.sandbox.network)),
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(cri::ImageSpec {
            image: config.image_ref.clone(),
            user_specified_image: config.image.image.clone(),
            runtime_handler: config.image.runtime_handler.clone(),
            ..cri::ImageSpec::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.envs.iter().map(env).collect(),
        mounts: config.mounts.iter().map(mount).collect::<Result<_>>()?,
        labels: to_map(&config.labels),
        annotations: to_map(&config.annotations),
        log_path: path_text(&config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(linux),
        ..cri::ContainerConfig::default()
    })
}

fn env(variable: &coracle_provider::EnvVar) -> cri::KeyValue {
    cri::KeyValue { key: variable.name.clone(), value: variable.value.clone().into_bytes() }
}

fn mount(mount: &Mount) -> Result<cri::Mount> {
    let propagation = match mount.propagation {
        MountPropagation::Private => cri::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    Ok(cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: path_text(&mount.host_path)?,
        readonly: mount.read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        ..cri::Mount::default()
    })
}

/// A mount as the runtime was told.
fn mount_status(mount: cri::Mount) -> Mount {
    let propagation = match mount.propagation() {
        cri::MountPropagation::PropagationPrivate => MountPropagation::Private,
        cri::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
    };
    Mount {
        container_path: mount.container_path,
        host_path: mount.host_path.into(),
        read_only: mount.readonly,
        propagation,
        selinux_relabel: mount.selinux_relabel,
        ..Mount::default()
    }
}

/// `calculateLinuxResources`. A request that is not there is the limit; without a period there are no CPU limits
/// (`cpuCFSQuota: false`).
pub(crate) fn linux_resources(
    resources: &Resources,
    quota_period: Option<Duration>,
) -> cri::LinuxContainerResources {
    let request = resources.cpu_request_millis.or(resources.cpu_limit_millis);
    let period = quota_period.map_or(0, |period| i64::try_from(period.as_micros()).unwrap_or(i64::MAX));
    let limit = resources.cpu_limit_millis.unwrap_or_default();
    cri::LinuxContainerResources {
        cpu_shares: cpu::millis_to_shares(request.unwrap_or_default()),
        cpu_period: period,
        cpu_quota: if period == 0 { 0 } else { cpu::millis_to_quota(limit, period) },
        memory_limit_in_bytes: resources
            .memory_limit_bytes
            .map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        ..cri::LinuxContainerResources::default()
    }
}

/// `toKubeContainerResources`. Memory requests are nothing that a runtime knows of.
fn resources(linux: &cri::LinuxContainerResources) -> Resources {
    let memory = u64::try_from(linux.memory_limit_in_bytes).ok().filter(|bytes| *bytes > 0);
    Resources {
        cpu_limit_millis: cpu::quota_to_millis(linux.cpu_quota, linux.cpu_period),
        cpu_request_millis: cpu::shares_to_millis(linux.cpu_shares),
        memory_limit_bytes: memory,
        memory_request_bytes: None,
    }
}

pub(crate) fn container_state(state: i32) -> ContainerState {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(cri::ContainerState::ContainerExited) => ContainerState::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

/// What a runtime says of a container. The table gives the revision.
pub(crate) fn container_status(
    status: cri::ContainerStatus,
    sandbox_id: String,
    sandbox: Option<&SandboxStatus>,
) -> Result<ContainerStatus> {
    let metadata =
        status.metadata.ok_or_else(|| Error::internal("the runtime has a container without a name"))?;
    let label = |key: &str| status.labels.get(key).cloned().unwrap_or_default();
    let by_labels = || PodRef {
        uid: label(POD_UID_LABEL),
        namespace: label(POD_NAMESPACE_LABEL),
        name: label(POD_NAME_LABEL),
    };
    let pod = sandbox.map_or_else(by_labels, |sandbox| sandbox.pod.clone());
    let image = status.image.unwrap_or_default();
    let user_wrote = Some(image.user_specified_image).filter(|name| !name.is_empty());
    let image = ImageSpec {
        image: user_wrote.unwrap_or(image.image),
        runtime_handler: sandbox.map(|it| it.runtime_handler.clone()).unwrap_or_default(),
    };
    let linux = status.resources.and_then(|it| it.linux);
    let (started_at, finished_at) =
        (optional_timestamp(status.started_at)?, optional_timestamp(status.finished_at)?);
    Ok(ContainerStatus {
        id: status.id,
        sandbox_id,
        pod,
        name: metadata.name,
        attempt: metadata.attempt,
        state: container_state(status.state),
        created_at: timestamp(status.created_at)?,
        // containerd notes a start when it hears of it, which can be after a quick end.
        started_at: started_at.map(|started| finished_at.map_or(started, |finished| started.min(finished))),
        finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image,
        image_id: status.image_ref,
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        mounts: status.mounts.into_iter().map(mount_status).collect(),
        log_path: status.log_path.into(),
        resources: linux.as_ref().map(resources).unwrap_or_default(),
        revision: Revision::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Option<Duration> = Some(Duration::from_millis(100));

    fn linux(request: Option<u64>, limit: Option<u64>, memory: Option<u64>) -> (i64, i64, i64, i64) {
        let resources = Resources {
            cpu_request_millis: request,
            cpu_limit_millis: limit,
            memory_limit_bytes: memory,
            memory_request_bytes: None,
        };
        let it = linux_resources(&resources, PERIOD);
        (it.cpu_shares, it.cpu_quota, it.cpu_period, it.memory_limit_in_bytes)
    }

    /// `TestCalculateLinuxResources`.
    #[test]
    fn resources_are_upstreams() {
        assert_eq!(linux(Some(1000), Some(2000), Some(128 << 20)), (1024, 200_000, 100_000, 128 << 20));
        assert_eq!(linux(None, Some(2000), None), (2048, 200_000, 100_000, 0), "the limit is the request");
        assert_eq!(linux(None, None, None), (2, 0, 100_000, 0));
        let without_quota =
            linux_resources(&Resources { cpu_limit_millis: Some(500), ..Resources::default() }, None);
        assert_eq!((without_quota.cpu_quota, without_quota.cpu_period), (0, 0));
    }

    #[test]
    fn resources_come_back() {
        let asked = Resources {
            cpu_request_millis: Some(250),
            cpu_limit_millis: Some(500),
            memory_limit_bytes: Some(1 << 20),
            memory_request_bytes: None,
        };
        assert_eq!(resources(&linux_resources(&asked, PERIOD)), asked);
        assert_eq!(resources(&cri::LinuxContainerResources::default()), Resources::default());
    }
}
