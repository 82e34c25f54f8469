//! The pods that this node should have: the truth about what is desired (upstream: `pkg/kubelet/pod/pod_manager.go`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::pod::{PodExt, PodUid};

/// Desired pods by UID, and the mirror pods of static ones by full name.
#[derive(Debug, Default)]
pub struct PodManager {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<PodUid, Arc<Pod>>,
    by_name: HashMap<(String, String), PodUid>,
    mirrors: HashMap<(String, String), Arc<Pod>>,
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().to_owned(), pod.name().to_owned())
}

impl PodManager {
    /// Adds a pod, or replaces it.
    pub fn upsert(&self, pod: Arc<Pod>) {
        let mut inner = self.inner.write();
        if pod.is_mirror() {
            inner.mirrors.insert(key(&pod), pod);
        } else {
            inner.by_name.insert(key(&pod), pod.uid());
            inner.pods.insert(pod.uid(), pod);
        }
    }

    /// Removes a pod. Another pod of the same name stays.
    pub fn remove(&self, pod: &Pod) {
        let mut inner = self.inner.write();
        let uid = pod.uid();
        if pod.is_mirror() {
            if inner.mirrors.get(&key(pod)).is_some_and(|m| m.uid() == uid) {
                inner.mirrors.remove(&key(pod));
            }
        } else {
            inner.pods.remove(&uid);
            if inner.by_name.get(&key(pod)) == Some(&uid) {
                inner.by_name.remove(&key(pod));
            }
        }
    }

    /// A pod by UID.
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.inner.read().pods.get(uid).cloned()
    }

    /// The newest pod of a name.
    pub fn get_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let inner = self.inner.read();
        let uid = inner.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        inner.pods.get(uid).cloned()
    }

    /// The API object of a static pod.
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.inner.read().mirrors.get(&key(pod)).cloned()
    }

    /// The static pod that this API object mirrors.
    pub fn pod_of_mirror(&self, mirror: &Pod) -> Option<Arc<Pod>> {
        self.get_by_name(mirror.namespace(), mirror.name()).filter(|pod| pod.is_static())
    }

    /// All pods, without mirrors.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.read().pods.values().cloned().collect()
    }

    /// How many there are, without mirrors.
    pub fn len(&self) -> usize {
        self.inner.read().pods.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn pod(uid: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            uid: Some(uid.into()),
            namespace: Some("ns".into()),
            name: Some("web".into()),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    #[test]
    fn a_recreated_pod_is_not_lost_when_the_old_one_goes() {
        let manager = PodManager::default();
        manager.upsert(pod("old"));
        manager.upsert(pod("new"));
        manager.remove(&pod("old"));
        assert_eq!(manager.get_by_name("ns", "web").map(|p| p.uid()), Some("new".into()));
        assert!(manager.get("old").is_none());
    }
}
