//! The resources of pods, in memory and on disk (upstream: `allocation/state`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use parking_lot::Mutex;

use super::checkpoint::{self, CheckpointError, Entries};
use crate::pod::PodExt;

/// The resources of one pod (`PodResourceInfo`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodResourceInfo {
    /// Of init and main containers, by name.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Of the pod as a whole.
    pub pod_level: Option<ResourceRequirements>,
    /// Of emptyDir volumes in memory. Nothing here changes them; what a Go kubelet wrote is kept.
    pub empty_dir_volume_limits: Option<BTreeMap<String, Option<ApiQuantity>>>,
}

/// What a pod's spec says of its resources (`ResourceInfoForPod`).
pub fn resource_info_for_pod(pod: &Pod) -> PodResourceInfo {
    let containers = pod.init_containers().iter().chain(pod.containers());
    PodResourceInfo {
        containers: containers.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect(),
        pod_level: pod.pod_spec().resources.clone(),
        empty_dir_volume_limits: None,
    }
}

/// The resources of all pods. Clones share them.
///
/// A change is in the file before the call returns. Removals are written with the next change: a pod too many does no
/// harm.
#[derive(Clone)]
pub struct State {
    file: Option<PathBuf>,
    pods: Arc<Mutex<Entries>>,
}

impl State {
    /// Remembered while the process lives.
    pub fn in_memory() -> Self {
        Self { file: None, pods: Arc::default() }
    }

    /// Remembered in a file; goes on from what is in it (`NewStateCheckpoint`).
    pub fn open(file: PathBuf) -> Result<Self, CheckpointError> {
        let pods = checkpoint::read(&file)?.unwrap_or_default();
        Ok(Self { file: Some(file), pods: Arc::new(Mutex::new(pods)) })
    }

    /// Whose resources there are.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<String> {
        self.pods.lock().keys().cloned().collect()
    }

    /// The resources of a pod.
    pub fn pod(&self, uid: &str) -> Option<PodResourceInfo> {
        self.pods.lock().get(uid).cloned()
    }

    /// The resources of all pods.
    pub fn pods(&self) -> Vec<(String, PodResourceInfo)> {
        self.pods.lock().iter().map(|(uid, info)| (uid.clone(), info.clone())).collect()
    }

    /// Whether anything is known of a pod.
    pub fn knows(&self, uid: &str) -> bool {
        self.pods.lock().contains_key(uid)
    }

    /// The resources of a container.
    pub fn container(&self, uid: &str, name: &str) -> Option<ResourceRequirements> {
        self.pods.lock().get(uid)?.containers.get(name).cloned()
    }

    /// Sets the resources of a pod.
    pub fn set_pod(&self, uid: &str, info: PodResourceInfo) -> Result<(), CheckpointError> {
        self.change(uid, |pod| *pod = info)
    }

    /// Sets the resources of a container.
    pub fn set_container(
        &self,
        uid: &str,
        name: &str,
        resources: ResourceRequirements,
    ) -> Result<(), CheckpointError> {
        self.change(uid, |pod| {
            pod.containers.insert(name.to_owned(), resources);
        })
    }

    /// Sets the resources of a pod as a whole.
    pub fn set_pod_level(&self, uid: &str, resources: ResourceRequirements) -> Result<(), CheckpointError> {
        self.change(uid, |pod| pod.pod_level = Some(resources))
    }

    /// Forgets a pod.
    pub fn remove_pod(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    /// Forgets all pods but those that `keep` says (`RemoveOrphanedPods`).
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.pods.lock().retain(|uid, _| keep(uid));
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut PodResourceInfo)) -> Result<(), CheckpointError> {
        let mut pods = self.pods.lock();
        let old = pods.get(uid).cloned();
        let mut new = old.clone().unwrap_or_default();
        change(&mut new);
        if old.as_ref() == Some(&new) {
            return Ok(());
        }
        pods.insert(uid.to_owned(), new);
        match &self.file {
            Some(file) => checkpoint::write(file, &pods),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requirements(memory: &str) -> ResourceRequirements {
        serde_json::from_value(json!({"limits": {"memory": memory}})).unwrap()
    }

    #[test]
    fn changes_are_there_after_a_restart_and_removals_with_the_next_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allocated_pods_state");
        let state = State::open(path.clone()).unwrap();
        assert!(!path.exists(), "nothing is allocated yet");
        state.set_container("a", "main", requirements("1Mi")).unwrap();
        state.set_pod_level("a", requirements("2Mi")).unwrap();
        state.set_pod("b", PodResourceInfo::default()).unwrap();

        let again = State::open(path.clone()).unwrap();
        assert_eq!(again.container("a", "main"), Some(requirements("1Mi")));
        assert_eq!(again.pod("a").unwrap().pod_level, Some(requirements("2Mi")));
        assert!(again.knows("b") && !again.knows("c"));

        again.remove_pod("a");
        assert!(State::open(path.clone()).unwrap().knows("a"));
        again.set_container("c", "main", requirements("1Mi")).unwrap();
        again.retain(|uid| uid == "c");
        assert!(!State::open(path).unwrap().knows("a"));
        assert!(!again.knows("b"));
    }

    #[test]
    fn what_is_no_change_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = State::open(path.clone()).unwrap();
        state.set_container("a", "main", requirements("1Mi")).unwrap();
        std::fs::remove_file(&path).unwrap();
        state.set_container("a", "main", requirements("1Mi")).unwrap();
        assert!(!path.exists());
    }
}
