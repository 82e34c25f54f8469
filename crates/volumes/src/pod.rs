//! What volumes ask of a pod as a whole.

use std::collections::HashSet;

use coracle_core::pod::PodExt;
use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::{Pod, SecurityContext, VolumeMount};

/// What volumes need to know of a container of any sort.
pub(crate) struct ContainerView<'a> {
    pub(crate) name: &'a str,
    pub(crate) mounts: &'a [VolumeMount],
    security_context: Option<&'a SecurityContext>,
}

/// Init, main and ephemeral containers. (`PodExt::all_containers` copies them, which is too much for every sync.)
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = ContainerView<'_>> {
    let spec = pod.pod_spec();
    let ordinary = spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| ContainerView {
        name: &c.name,
        mounts: c.volume_mounts.as_deref().unwrap_or_default(),
        security_context: c.security_context.as_ref(),
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| ContainerView {
        name: &c.name,
        mounts: c.volume_mounts.as_deref().unwrap_or_default(),
        security_context: c.security_context.as_ref(),
    });
    ordinary.chain(ephemeral)
}

/// The volumes that some container mounts. Upstream does not set up the others, and neither does this.
pub(crate) fn used_volumes(pod: &Pod) -> HashSet<&str> {
    containers(pod).flat_map(|c| c.mounts).map(|m| m.name.as_str()).collect()
}

/// Whose the files of a pod's volumes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `runAsUser`, if all containers have the same.
    pub(crate) fs_user: Option<u32>,
    /// `fsGroup`.
    pub(crate) fs_group: Option<u32>,
}

impl Owner {
    /// What the security contexts say.
    pub(crate) fn of(pod: &Pod) -> Result<Self, VolumeError> {
        let fs_group = pod.pod_spec().security_context.as_ref().and_then(|c| c.fs_group);
        Ok(Self {
            fs_user: fs_user_from(pod).map(|id| to_id("runAsUser", id)).transpose()?,
            fs_group: fs_group.map(|id| to_id("fsGroup", id)).transpose()?,
        })
    }
}

/// The user that all containers run as, if they all say the same (`FsUserFrom` in `pkg/volume/util/util.go`).
fn fs_user_from(pod: &Pod) -> Option<i64> {
    let default = pod.pod_spec().security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = containers(pod).map(|c| c.security_context.and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

/// A user or group id as the kernel takes it.
pub(crate) fn to_id(field: &str, id: i64) -> Result<u32, VolumeError> {
    u32::try_from(id)
        .ok()
        // The kernel takes this one as "leave it as it is".
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| VolumeError::Invalid(format!("{field} {id} is not a user or group id")))
}
