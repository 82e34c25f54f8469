//! Volumes and files of pods, in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::machine::FileSystem;
use coracle_core::pod::PodExt;
use coracle_core::ports::{PodFiles, VolumeError, VolumeUsage, Volumes};
use coracle_provider::{DiskStats, EnvVar, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::FakeApi;

#[async_trait]
impl PodFiles for FakeApi {
    async fn write_hosts_file(&self, uid: &str, content: Vec<u8>) -> Result<PathBuf, VolumeError> {
        self.hosts_files.lock().insert(uid.to_owned(), String::from_utf8(content).unwrap());
        Ok(PathBuf::from(format!("/pods/{uid}/etc-hosts")))
    }
    async fn make_termination_log(
        &self,
        uid: &str,
        container: &str,
        restart_count: u32,
    ) -> Result<PathBuf, VolumeError> {
        let path = PathBuf::from(format!("/pods/{uid}/containers/{container}/{restart_count}"));
        self.termination_logs.lock().insert(path.clone(), Vec::new());
        Ok(path)
    }
    async fn read_termination_log(
        &self,
        _uid: &str,
        file: &Path,
        at_most: usize,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        let logs = self.termination_logs.lock();
        Ok(logs.get(file).map(|log| log[log.len().saturating_sub(at_most)..].to_vec()))
    }
    async fn read_env_file(&self, _pod: &Pod, volume: &str, path: &str) -> Result<Vec<u8>, VolumeError> {
        match (volume, path) {
            ("env", "file") => Ok(b"KEY='value'\n".to_vec()),
            _ => Err(VolumeError::Invalid("no such volume".into())),
        }
    }
}

#[async_trait]
impl Volumes for FakeApi {
    fn check(&self, _pod: &Pod) -> Result<(), String> {
        Ok(())
    }
    async fn mount(&self, pod: &Arc<Pod>) -> Result<(), VolumeError> {
        if let Some(error) = self.mount_error.lock().clone() {
            return Err(VolumeError::NotReady(error));
        }
        *self.mounted.lock().entry(pod.uid().to_string()).or_default() += 1;
        Ok(())
    }
    async fn container_mounts(
        &self,
        _pod: &Pod,
        _container: &Container,
        _env: &[EnvVar],
    ) -> Result<Vec<Mount>, VolumeError> {
        Ok(Vec::new())
    }
    async fn unmount(&self, uid: &str) -> Result<(), VolumeError> {
        self.mounted.lock().remove(uid);
        Ok(())
    }
    async fn empty_dir_usage(&self, _uid: &str, volume: &str) -> Result<DiskStats, VolumeError> {
        let used_bytes = self.used_bytes.lock().get(volume).copied().unwrap_or_default();
        Ok(DiskStats { used_bytes, inodes_used: 1 })
    }
    async fn usage(&self, pod: &Pod) -> Vec<VolumeUsage> {
        self.measured_pods.lock().push(pod.uid().to_string());
        vec![VolumeUsage {
            volume: "data".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            used_bytes: 1,
            inodes_used: 1,
            file_system: FileSystem::default(),
            is_ephemeral: true,
        }]
    }
    async fn known_pods(&self) -> Result<Vec<String>, VolumeError> {
        Ok(self.mounted.lock().keys().cloned().collect())
    }
}
