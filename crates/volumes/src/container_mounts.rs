//! From the volume mounts of a container to the paths that it sees (`makeMounts` in `pkg/kubelet/kubelet_pods.go`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use coracle_core::expansion::expand;
use coracle_core::ports::VolumeError;
use coracle_provider::{EnvVar, Mount};
use k8s_openapi::api::core::v1::{HostPathVolumeSource, VolumeMount};

use crate::error::in_volume;
use crate::host_path;
use crate::spec::check_mount;
use crate::subpath;

/// One mount of a container, ready to be resolved on disk.
pub(crate) struct MountPlan {
    pub(crate) volume: String,
    pub(crate) base: Base,
    /// Expanded and validated; empty for the whole volume.
    pub(crate) sub_path: String,
    pub(crate) container_path: String,
    pub(crate) read_only: bool,
}

/// Where a volume is.
pub(crate) enum Base {
    /// A directory under the root directory.
    Own(PathBuf),
    /// Somewhere on the node. It is looked up anew for each container: it may have changed.
    Host(HostPathVolumeSource),
}

impl MountPlan {
    /// What a container asks for, except for the volume's own part in it.
    pub(crate) fn new(
        mount: &VolumeMount,
        base: Base,
        volume_is_read_only: bool,
        env: &[EnvVar],
    ) -> Result<Self, VolumeError> {
        check_mount(mount)?;
        let sub_path = sub_path(mount, env)?;
        subpath::validate(&sub_path)?;
        Ok(Self {
            volume: mount.name.clone(),
            base,
            sub_path,
            container_path: absolute(&mount.mount_path),
            read_only: mount.read_only.unwrap_or(false) || volume_is_read_only,
        })
    }

    /// Whether resolving it needs the disk.
    pub(crate) fn needs_disk(&self) -> bool {
        !self.sub_path.is_empty() || matches!(self.base, Base::Host(_))
    }

    /// Finds, and if need be makes, what the container will see. May block.
    pub(crate) fn resolve(self, root: &Path) -> Result<Mount, VolumeError> {
        let find = || {
            let base = match &self.base {
                Base::Own(path) => path.clone(),
                Base::Host(source) => host_path::resolve(source, root)?,
            };
            if self.sub_path.is_empty() {
                return Ok(base);
            }
            let file = subpath::open(&base, &self.sub_path)?;
            subpath::real_path(&file, &base)
        };
        let host_path = find().map_err(|error| in_volume(&self.volume, error))?;
        Ok(Mount {
            container_path: self.container_path,
            host_path,
            read_only: self.read_only,
            of_node: matches!(self.base, Base::Host(_)),
            ..Mount::default()
        })
    }
}

fn sub_path(mount: &VolumeMount, env: &[EnvVar]) -> Result<String, VolumeError> {
    match mount.sub_path_expr.as_deref().unwrap_or_default() {
        "" => Ok(mount.sub_path.clone().unwrap_or_default()),
        expression => expand_sub_path(expression, env),
    }
}

/// Expands a subPathExpr; every variable must have a value (`ExpandContainerVolumeMounts`).
fn expand_sub_path(expression: &str, env: &[EnvVar]) -> Result<String, VolumeError> {
    let values: HashMap<&str, &str> = env.iter().map(|e| (e.name.as_str(), e.value.as_str())).collect();
    let mut missing = BTreeSet::new();
    let expanded = expand(expression, |name| {
        let value = values.get(name).copied().unwrap_or_default();
        if value.is_empty() {
            missing.insert(name.to_owned());
        }
        value.to_owned()
    });
    if missing.is_empty() {
        return Ok(expanded);
    }
    let missing: Vec<_> = missing.into_iter().collect();
    let message = format!("subPathExpr {expression:?}: missing value for {}", missing.join(", "));
    Err(VolumeError::NotReady(message))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
