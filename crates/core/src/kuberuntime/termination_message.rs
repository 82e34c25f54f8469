//! What containers leave to be said about their end (upstream: `getTerminationMessage`,
//! `readLastStringFromContainerLogs` and `convertToKubeContainerStatus` in `kuberuntime_container.go`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::PodStatus;

use super::labels::{termination_message_path_annotation, termination_message_policy_annotation};
use super::manager::KubeGenericRuntimeManager;
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::logs::{
    MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH, MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES, read_last,
    text_of_end,
};

/// Longest message that is taken from a container's file, in bytes, from its end (`MaxContainerTerminationMessageLength`).
const MAX_CONTAINER_TERMINATION_MESSAGE_LENGTH: usize = 4096;
/// How many instances of a container its status shows: the newest, and the one before.
const SHOWN_INSTANCES: usize = 2;
/// The policy that takes the end of the log where there is no message.
const FALLBACK_TO_LOGS_ON_ERROR: &str = "FallbackToLogsOnError";
/// What a runtime says of a container that never ran, and so has no log.
const CONTAINER_CANNOT_RUN: &str = "ContainerCannotRun";

/// Where a container finds the file for its message; none if it is to have none.
pub(super) fn termination_message_path(wanted: &str) -> Option<String> {
    match wanted {
        "" => None,
        path if path.starts_with('/') => Some(path.to_owned()),
        path => Some(format!("/{path}")),
    }
}

impl KubeGenericRuntimeManager {
    /// Adds to what the runtimes say of containers that have ended what those left to be said. What `old`, the pod's status
    /// so far, shows already is taken from there: files and logs may be gone since.
    pub async fn with_termination_messages<'a>(
        &self,
        runtime: &'a RuntimePod,
        old: &PodStatus,
    ) -> Cow<'a, RuntimePod> {
        let mut complete = Cow::Borrowed(runtime);
        let mut instances: HashMap<&str, usize> = HashMap::new();
        for (position, container) in runtime.containers.iter().enumerate() {
            let newer = instances.entry(&container.name).or_default();
            *newer += 1;
            if container.state != ContainerState::Exited || *newer > SHOWN_INSTANCES {
                continue;
            }
            let message = match shown_message(old, &container.container_id()) {
                Some(shown) => shown.to_owned(),
                None => self.last_words(container).await,
            };
            if !message.is_empty() && message != container.message {
                Arc::make_mut(&mut complete.to_mut().containers[position].status).message = message;
            }
        }
        complete
    }

    /// The runtime's word and then the container's.
    async fn last_words(&self, container: &RuntimeContainer) -> String {
        let own = match self.message_of_file(container).await {
            Some(message) => message,
            None if falls_back_to_logs(container) => message_of_log(container).await,
            None => String::new(),
        };
        let parts = [container.message.as_str(), &own];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// None if there is no file, or nothing in it.
    async fn message_of_file(&self, container: &RuntimeContainer) -> Option<String> {
        let path = termination_message_path(termination_message_path_annotation(&container.annotations))?;
        // The last one lies on top.
        let mount = container.mounts.iter().rev().find(|mount| mount.container_path == path)?;
        let (uid, file) = (&container.pod.uid, &mount.host_path);
        match self.volumes.read_termination_log(uid, file, MAX_CONTAINER_TERMINATION_MESSAGE_LENGTH).await {
            Ok(content) => content.filter(|it| !it.is_empty()).map(|it| text_of_end(&it)),
            Err(error) => Some(format!("Error on reading termination log {}: {error}", file.display())),
        }
    }
}

fn falls_back_to_logs(container: &RuntimeContainer) -> bool {
    termination_message_policy_annotation(&container.annotations) == FALLBACK_TO_LOGS_ON_ERROR
        && container.exit_code != 0
        && container.reason != CONTAINER_CANNOT_RUN
}

async fn message_of_log(container: &RuntimeContainer) -> String {
    let (lines, bytes) =
        (MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES, MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH);
    let read = read_last(&container.log_path, lines, bytes).await;
    read.unwrap_or_else(|error| format!("Error on reading termination message from logs: {error}"))
}

/// What a status says of the end of an instance; none if it does not know of that end.
fn shown_message<'a>(status: &'a PodStatus, container_id: &str) -> Option<&'a str> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let states = lists.into_iter().flatten().flatten().flat_map(|it| [&it.state, &it.last_state]);
    let mut ends = states.flatten().filter_map(|state| state.terminated.as_ref());
    let end = ends.find(|end| end.container_id.as_deref() == Some(container_id))?;
    Some(end.message.as_deref().unwrap_or_default())
}
