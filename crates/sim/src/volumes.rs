//! Volumes that come late, fail, and have to be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::pod::PodExt;
use coracle_core::ports::{PodFiles, VolumeError, Volumes};
use coracle_provider::{DiskStats, EnvVar, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::faults::Faults;
use crate::history::{Fact, History};

/// The volumes of all pods.
pub(crate) struct SimVolumes {
    mounted: Mutex<BTreeSet<String>>,
    /// Those that are there only from then on.
    late: Mutex<BTreeMap<String, Instant>>,
    dice: Dice,
    faults: Arc<Faults>,
    history: Arc<History>,
}

impl SimVolumes {
    pub(crate) fn new(dice: Dice, faults: Arc<Faults>, history: Arc<History>) -> Arc<Self> {
        Arc::new(Self { mounted: Mutex::default(), late: Mutex::default(), dice, faults, history })
    }

    pub(crate) fn come_at(&self, uid: &str, at: Instant) {
        self.late.lock().insert(uid.to_owned(), at);
    }

    pub(crate) fn mounted(&self) -> BTreeSet<String> {
        self.mounted.lock().clone()
    }

    fn io_error(&self, what: &str) -> Result<(), VolumeError> {
        if self.faults.volumes_fail(&self.dice) {
            return Err(VolumeError::Io(format!("{what} failed")));
        }
        Ok(())
    }
}

#[async_trait]
impl PodFiles for SimVolumes {
    async fn write_hosts_file(&self, pod_uid: &str, _content: Vec<u8>) -> Result<PathBuf, VolumeError> {
        Ok(PathBuf::from("/pods").join(pod_uid).join("etc-hosts"))
    }

    async fn make_termination_log(
        &self,
        pod_uid: &str,
        container: &str,
        restart_count: u32,
    ) -> Result<PathBuf, VolumeError> {
        Ok(PathBuf::from("/pods").join(pod_uid).join(container).join(restart_count.to_string()))
    }

    async fn read_termination_log(
        &self,
        _pod_uid: &str,
        _file: &Path,
        _at_most: usize,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        Ok(None)
    }

    async fn read_env_file(&self, _pod: &Pod, _volume: &str, _path: &str) -> Result<Vec<u8>, VolumeError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Volumes for SimVolumes {
    fn check(&self, _pod: &Pod) -> Result<(), String> {
        Ok(())
    }

    async fn mount(&self, pod: &Arc<Pod>) -> Result<(), VolumeError> {
        let uid = pod.uid();
        // What fails half way leaves something behind.
        if self.mounted.lock().insert(uid.to_string()) {
            self.history.tell(&uid, Fact::Mounted);
        }
        sleep(self.dice.millis(0..10)).await;
        if self.late.lock().get(&*uid).is_some_and(|at| Instant::now() < *at) {
            return Err(VolumeError::NotReady("configmap \"late\" not found".to_owned()));
        }
        self.io_error("mount")
    }

    async fn container_mounts(
        &self,
        _pod: &Pod,
        _container: &Container,
        _env: &[EnvVar],
    ) -> Result<Vec<Mount>, VolumeError> {
        self.io_error("subPath")?;
        Ok(Vec::new())
    }

    async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeError> {
        sleep(self.dice.millis(0..10)).await;
        self.io_error("unmount")?;
        if self.mounted.lock().remove(pod_uid) {
            self.history.tell(pod_uid, Fact::Unmounted);
        }
        Ok(())
    }

    async fn empty_dir_usage(&self, _pod_uid: &str, _volume: &str) -> Result<DiskStats, VolumeError> {
        Ok(DiskStats::default())
    }

    async fn known_pods(&self) -> Result<Vec<String>, VolumeError> {
        self.io_error("read_dir")?;
        Ok(self.mounted.lock().iter().cloned().collect())
    }
}
