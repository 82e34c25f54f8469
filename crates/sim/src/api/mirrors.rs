//! The API objects of static pods.

use async_trait::async_trait;
use coracle_core::clock::api_now;
use coracle_core::pod::{PodExt, phase};
use coracle_core::ports::{ApiError, MirrorClient};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{Api, subject};
use crate::history::Fact;

#[async_trait]
impl MirrorClient for Api {
    async fn create_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        let uid = subject(mirror);
        let create = || {
            if self.get(mirror.name()).is_some() {
                return Err(ApiError::Conflict(format!("pods {:?} already exists", mirror.name())));
            }
            let mut pod = mirror.clone();
            let mut state = self.state.lock();
            state.mirrors += 1;
            pod.metadata.uid = Some(format!("mirror{}", state.mirrors));
            pod.metadata.generation = Some(1);
            pod.metadata.creation_timestamp = Some(api_now());
            let phase = Some(phase::PENDING.to_owned());
            pod.status = Some(PodStatus { phase, ..PodStatus::default() });
            self.put(&mut state, pod);
            drop(state);
            self.history.tell(&uid, Fact::MirrorCreated);
            Ok(())
        };
        self.call(&uid, "a mirror pod", create).await
    }

    async fn delete_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        let uid = subject(mirror);
        let delete = || match self.find(mirror.name(), Some(&mirror.uid())) {
            Ok(found) => {
                if !found.is_deleting() {
                    self.history.tell(&uid, Fact::MirrorRemoved);
                }
                self.remove(&found, true);
                Ok(())
            }
            Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        };
        self.call(&uid, "the deletion of a mirror pod", delete).await
    }
}
