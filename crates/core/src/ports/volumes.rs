//! Volumes of pods.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::{DiskStats, EnvVar, Mount};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::PodFiles;
use crate::machine::FileSystem;

/// Why a volume is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// It may be there later: a missing ConfigMap, a token that could not be fetched.
    #[error("{0}")]
    NotReady(String),
    /// It can never be there as the pod is written.
    #[error("{0}")]
    Invalid(String),
    /// The disk or the kernel refused.
    #[error("{0}")]
    Io(String),
}

/// What a volume takes that is kept for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name in the pod.
    pub volume: String,
    /// When it was measured.
    pub at: Timestamp,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Files and folders.
    pub inodes_used: u64,
    /// The file system that it is in.
    pub file_system: FileSystem,
    /// Whether it counts as the pod's ephemeral storage.
    pub is_ephemeral: bool,
}

/// Mounts and unmounts. Calls for one pod come from its worker, one at a time.
#[async_trait]
pub trait Volumes: PodFiles {
    /// Says whether every volume of the pod is of a kind that is supported; a message that names the first that is not.
    fn check(&self, pod: &Pod) -> Result<(), String>;

    /// Makes all volumes of a pod present and up to date, and returns when they are. Called again at every sync, it
    /// refreshes what can change (tokens, configMaps, labels) and is cheap when nothing did.
    async fn mount(&self, pod: &Arc<Pod>) -> Result<(), VolumeError>;

    /// The mounts of one container, subPath and subPathExpr resolved. The volumes must be mounted.
    async fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[EnvVar],
    ) -> Result<Vec<Mount>, VolumeError>;

    /// Removes all volumes of a pod, and everything else kept for it. Nothing of the pod runs any more.
    async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeError>;

    /// What an emptyDir of a pod takes on disk; nothing if it is not there. Looks at every file in it.
    async fn empty_dir_usage(&self, pod_uid: &str, volume: &str) -> Result<DiskStats, VolumeError>;

    /// What the volumes of a pod take, those of the node's own folders aside. Looks at every file in them; what cannot be
    /// measured is left out.
    async fn usage(&self, _pod: &Pod) -> Vec<VolumeUsage> {
        Vec::new()
    }

    /// The UIDs of all pods that have something on disk.
    async fn known_pods(&self) -> Result<Vec<String>, VolumeError>;
}
