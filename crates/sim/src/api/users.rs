//! What people and controllers do to pods.

use std::sync::Arc;

use coracle_core::clock;
use coracle_core::pod::{PodExt, phase};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Api, subject};
use crate::history::Fact;

/// The annotation with the generation of a pod's last resize.
pub(crate) const RESIZED: &str = "sim/resized";

impl Api {
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.state.lock().pods.values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Pod>> {
        self.state.lock().pods.get(name).cloned()
    }

    /// How many statuses were written.
    pub(crate) fn patches(&self) -> usize {
        self.state.lock().patches
    }

    /// A user makes a pod. Its name is free.
    pub(crate) fn create(&self, pod: Pod) {
        let pod = self.put(&mut self.state.lock(), pod);
        self.history.tell(&pod.uid(), Fact::Created(pod.clone()));
    }

    /// A user deletes a pod, gracefully unless it has ended (`CheckGracefulDelete`); again, and the time gets shorter.
    pub(crate) fn delete(&self, name: &str, grace: i64) {
        let Some(pod) = self.get(name) else { return };
        self.history.note(&subject(&pod), format!("a user deletes {}, with {grace} s", pod.uid()));
        if grace == 0 || phase::is_terminal(pod.phase()) {
            self.remove(&pod, false);
            return;
        }
        let mut pod = (*pod).clone();
        let meta = &mut pod.metadata;
        if meta.deletion_grace_period_seconds.is_some_and(|old| old <= grace) {
            return;
        }
        if meta.deletion_timestamp.is_none() {
            meta.generation = Some(meta.generation.unwrap_or_default() + 1);
        }
        let at = clock::now().checked_add(SignedDuration::from_secs(grace)).unwrap_or(clock::now());
        meta.deletion_timestamp = Some(Time(at));
        meta.deletion_grace_period_seconds = Some(grace);
        self.put(&mut self.state.lock(), pod);
    }

    /// A user, or a controller, changes what is not in the spec.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        let Some(pod) = self.get(name) else { return };
        let mut pod = (*pod).clone();
        change(&mut pod);
        let unwanted = pod.metadata.deletion_grace_period_seconds == Some(0);
        let has_finalizers = pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
        let pod = self.put(&mut self.state.lock(), pod);
        if unwanted && !has_finalizers {
            self.remove(&pod, false);
        }
    }

    /// A user changes a pod's spec.
    pub(crate) fn change_spec(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        self.change(name, |pod| {
            let before = pod.spec.clone();
            change(pod);
            if pod.spec == before {
                return;
            }
            pod.metadata.generation = pod.metadata.generation.map(|g| g + 1);
            if before.is_some_and(|before| resources(&before.containers) != resources(pod.containers())) {
                let generation = pod.metadata.generation.unwrap_or_default().to_string();
                pod.metadata.annotations.get_or_insert_default().insert(RESIZED.to_owned(), generation);
            }
        });
    }

    /// Every watch breaks off.
    pub(crate) fn drop_watches(&self) {
        self.state.lock().watches.clear();
    }
}

fn resources(containers: &[Container]) -> Vec<&Option<ResourceRequirements>> {
    containers.iter().map(|container| &container.resources).collect()
}
