//! The pods that this node should have: the truth about what is desired (upstream: `pkg/kubelet/pod/pod_manager.go`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::pod::{CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, PodExt, PodUid};

/// Desired pods by UID, and the mirror pods of static ones by full name.
#[derive(Debug, Default)]
pub struct PodManager {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<PodUid, Arc<Pod>>,
    by_name: HashMap<(String, String), PodUid>,
    mirrors: BTreeMap<(String, String), Arc<Pod>>,
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

    /// The mirror pod of a static pod's name (`GetMirrorPodByPod`). It may still be that of another manifest.
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.inner.read().mirrors.get(&key(pod)).cloned()
    }

    /// The static pod of a mirror pod's name (`GetPodByMirrorPod`).
    pub fn pod_of_mirror(&self, mirror: &Pod) -> Option<Arc<Pod>> {
        self.get_by_name(mirror.namespace(), mirror.name()).filter(|pod| pod.is_static())
    }

    /// Mirror pods of which there is no static pod.
    pub fn orphaned_mirrors(&self) -> Vec<Arc<Pod>> {
        let inner = self.inner.read();
        let is_orphan = |(name, _): &(&(String, String), &Arc<Pod>)| !inner.by_name.contains_key(*name);
        inner.mirrors.iter().filter(is_orphan).map(|(_, mirror)| mirror.clone()).collect()
    }

    /// The object of a pod that the apiserver has: the pod itself, or the mirror of a static one.
    pub fn api_object(&self, pod: &Arc<Pod>) -> Option<Arc<Pod>> {
        if !pod.is_static() {
            return Some(pod.clone());
        }
        self.mirror_of(pod).filter(|mirror| is_mirror_pod_of(mirror, pod))
    }

    /// Whether there is a mirror pod of this UID.
    pub fn has_mirror(&self, uid: &PodUid) -> bool {
        self.inner.read().mirrors.values().any(|mirror| mirror.uid() == *uid)
    }

    /// All pods, without mirrors.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.read().pods.values().cloned().collect()
    }

    /// How many there are, without mirrors.
    pub fn len(&self) -> usize {
        self.inner.read().pods.len()
    }

    /// How many mirrors of static pods there are.
    pub fn mirror_count(&self) -> usize {
        self.inner.read().mirrors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a mirror pod is that of this static pod, and not of another one that had its name (`IsMirrorPodOf`).
pub fn is_mirror_pod_of(mirror: &Pod, pod: &Pod) -> bool {
    let hash = mirror.annotation(CONFIG_MIRROR_ANNOTATION);
    key(mirror) == key(pod) && hash.is_some() && hash == pod.annotation(CONFIG_HASH_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::pod::CONFIG_SOURCE_ANNOTATION;

    fn pod(uid: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            uid: Some(uid.into()),
            namespace: Some("ns".into()),
            name: Some("web".into()),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    fn annotated(uid: &str, annotations: &[(&str, &str)]) -> Arc<Pod> {
        let mut pod = pod(uid);
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Arc::make_mut(&mut pod).metadata.annotations = Some(annotations.collect());
        pod
    }

    fn static_pod(uid: &str) -> Arc<Pod> {
        annotated(uid, &[(CONFIG_SOURCE_ANNOTATION, "file"), (CONFIG_HASH_ANNOTATION, uid)])
    }

    fn mirror(uid: &str, hash: &str) -> Arc<Pod> {
        annotated(uid, &[(CONFIG_SOURCE_ANNOTATION, "api"), (CONFIG_MIRROR_ANNOTATION, hash)])
    }

    /// `TestGetSetPods` and `TestRemovePods` in upstream's `pod_manager_test.go`.
    #[test]
    fn mirrors_are_found_by_name_and_are_no_pods() {
        let manager = PodManager::default();
        manager.upsert(mirror("m1", "s1"));
        assert!(manager.is_empty() && manager.get("m1").is_none());
        assert_eq!(manager.orphaned_mirrors(), [mirror("m1", "s1")]);
        manager.upsert(static_pod("s1"));
        assert!(manager.orphaned_mirrors().is_empty());
        assert_eq!(manager.mirror_of(&static_pod("s1")).unwrap().uid(), "m1".into());
        assert_eq!(manager.pod_of_mirror(&mirror("m1", "s1")).unwrap().uid(), "s1".into());
        manager.upsert(mirror("m2", "s1"));
        manager.remove(&mirror("m1", "s1"));
        assert_eq!(
            manager.mirror_of(&static_pod("s1")).unwrap().uid(),
            "m2".into(),
            "a late removal harms nobody"
        );
        manager.remove(&static_pod("s1"));
        assert_eq!(manager.orphaned_mirrors().len(), 1);
        manager.remove(&mirror("m2", "s1"));
        assert!(manager.mirror_of(&static_pod("s1")).is_none());
    }

    #[test]
    fn the_status_of_a_static_pod_belongs_on_its_own_mirror() {
        let manager = PodManager::default();
        assert_eq!(manager.api_object(&pod("a")), Some(pod("a")));
        assert_eq!(manager.api_object(&static_pod("s1")), None);
        manager.upsert(mirror("m1", "s1"));
        assert_eq!(manager.api_object(&static_pod("s1")), Some(mirror("m1", "s1")));
        assert_eq!(manager.api_object(&static_pod("s2")), None, "the manifest has changed");
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
