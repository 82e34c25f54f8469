//! Files that the kubelet makes for the containers of a pod.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use super::VolumeError;

/// Files below a pod's folder that the kubelet itself writes or reads. They go with the pod's volumes ([`super::Volumes::unmount`]).
#[async_trait]
pub trait PodFiles: Send + Sync {
    /// Writes the hosts file of a pod, into the file that is there already if there is one: containers that see it see the
    /// new content. Answers where it is.
    async fn write_hosts_file(&self, pod_uid: &str, content: Vec<u8>) -> Result<PathBuf, VolumeError>;

    /// Makes an empty file, writable for everybody, for what an instance of a container has to say about its end, and
    /// answers where it is. Those of its last instances stay, older ones do not.
    async fn make_termination_log(
        &self,
        pod_uid: &str,
        container: &str,
        restart_count: u32,
    ) -> Result<PathBuf, VolumeError>;

    /// What is in such a file, at most its last bytes. None if it is not there, or if it is not one of this pod's: a volume
    /// may lie in its place, and what that leads to may be nobody's business.
    async fn read_termination_log(
        &self,
        pod_uid: &str,
        file: &Path,
        at_most: usize,
    ) -> Result<Option<Vec<u8>>, VolumeError>;

    /// What is in a file of variables that a container of the pod has written into an emptyDir. `path` is relative to that, and
    /// links in it end there. The volume must be mounted.
    async fn read_env_file(&self, pod: &Pod, volume: &str, path: &str) -> Result<Vec<u8>, VolumeError>;
}
