//! The read side: what the kubelet's own API may ask of it (upstream: `HostInterface` in `pkg/kubelet/server/server.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::FsUsage;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use tokio::time::Instant;

use crate::sessions::Sessions;
use crate::stats::{PodsUsage, UsageScope};

/// What the kubelet's own API asks of the kubelet. Nothing but sessions changes anything.
#[async_trait]
pub trait HostInterface: Sessions {
    /// All pods bound to this node, each with its newest status (`GetPods`).
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// Those that still need something of the node (`GetActivePods`).
    fn active_pods(&self) -> Vec<Arc<Pod>>;

    /// One of them (`GetPodByName`).
    fn pod_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// Where the log of a container is: of the last one that ended if `previous`, else of the newest one that has a
    /// log (the first half of `GetKubeletContainerLogs`).
    async fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerLog, LogError>;

    /// Whether the sync loop still turns (`SyncLoopHealthCheck`).
    fn sync_loop_health_check(&self) -> Result<(), SyncLoopStuck>;

    /// The pods that the runtimes have running, wanted or not (`GetRunningPods`): names, and containers with their
    /// images.
    fn running_pods(&self) -> Vec<Pod>;

    /// What pods use (`ListPodStats`, `ListPodCPUAndMemoryStats`).
    async fn pods_usage(&self, scope: UsageScope) -> PodsUsage;

    /// How full the file systems of images are (`ImageFsStats`).
    async fn image_fs_usage(&self) -> Vec<FsUsage>;

    /// How many pods and containers there are.
    fn counts(&self) -> Counts;
}

/// Pods and containers, counted. What upstream keeps in gauges, at each relist and each cleanup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods with a ready sandbox (`kubelet_running_pods`).
    pub running_pods: usize,
    /// Containers by the state that their runtime says: `created`, `running`, `exited`, `unknown`.
    pub containers: BTreeMap<&'static str, usize>,
    /// Pods that the sources want here: of the apiserver, and static ones (`kubelet_desired_pods`).
    pub desired_pods: (usize, usize),
    /// Of those, the ones that have not ended (`kubelet_active_pods`).
    pub active_pods: (usize, usize),
    /// Mirrors of static pods (`kubelet_mirror_pods`).
    pub mirror_pods: usize,
}

/// A container's log.
pub struct ContainerLog {
    /// The file, in CRI's format.
    pub path: PathBuf,
    /// Resolves when the container has ended and everything it wrote is in the file; at once if it already has.
    pub ended: BoxFuture<'static, ()>,
}

impl fmt::Debug for ContainerLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerLog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why there is no log to show. The texts are upstream's: people and tools search for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such pod here.
    #[error("pod {pod:?} cannot be found - no logs available")]
    PodNotFound {
        /// The pod's name.
        pod: String,
    },
    /// The pod's status says nothing of this container.
    #[error("container {container:?} in pod {pod:?} is not available")]
    NotAvailable {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// Asked for the log before the last restart, of a container that never restarted.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    PreviousNotFound {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// It ended without ever having run.
    #[error("container {container:?} in pod {pod:?} is terminated")]
    Terminated {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// It has not started yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
        /// What it waits for.
        reason: String,
    },
    /// Nothing is known of it yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start - no logs yet")]
    NoLogsYet {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// The runtime does not know this container (any more).
    #[error("unable to retrieve container logs for {container_id}")]
    Runtime {
        /// The container's id, with the runtime's scheme.
        container_id: String,
    },
}

/// The id (`<runtime>://<id>`) of the container whose log is meant, by what the pod's status says
/// (`validateContainerLogStatus`): the running one, else the last one that ended; only the latter if `previous`.
pub fn validate_container_log_status(
    pod: &str,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<String, LogError> {
    let (container, pod) = (container.to_owned(), pod.to_owned());
    let Some(status) = container_status(status, &container) else {
        return Err(LogError::NotAvailable { container, pod });
    };
    let state = status.state.as_ref();
    let last_ended = status.last_state.as_ref().and_then(|state| ended_id(Some(state)));
    if previous {
        return last_ended.ok_or(LogError::PreviousNotFound { container, pod });
    }
    if state.is_some_and(|state| state.running.is_some()) {
        return Ok(status.container_id.clone().unwrap_or_default());
    }
    let has_ended = |state: &ContainerState| state.terminated.is_some();
    // A container that ended without an id never started; then the one before it is meant.
    if state.is_some_and(has_ended) {
        return ended_id(state).or(last_ended).ok_or(LogError::Terminated { container, pod });
    }
    if status.last_state.as_ref().is_some_and(has_ended) {
        return last_ended.ok_or(LogError::Terminated { container, pod });
    }
    let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) else {
        return Err(LogError::NoLogsYet { container, pod });
    };
    let reason = match waiting.reason.as_deref() {
        Some("ErrImagePull") => "image can't be pulled".into(),
        Some("ImagePullBackOff") => "trying and failing to pull image".into(),
        reason => reason.unwrap_or_default().into(),
    };
    Err(LogError::Waiting { container, pod, reason })
}

fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

/// The id of a container that ended, if it ever ran.
fn ended_id(state: Option<&ContainerState>) -> Option<String> {
    state?.terminated.as_ref()?.container_id.clone().filter(|id| !id.is_empty())
}

/// The sync loop has not come round for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sync Loop took longer than expected")]
pub struct SyncLoopStuck;

/// A sync loop is never called stuck before this, however short the resync interval.
const MIN_SYNC_LOOP_DURATION: Duration = Duration::from_secs(5 * 60);

/// Judges the sync loop by when it last began a round, which is none before the first (`SyncLoopHealthCheck`).
pub fn check_sync_loop(
    latest_loop_entry: Option<Instant>,
    resync_interval: Duration,
) -> Result<(), SyncLoopStuck> {
    let allowed = (resync_interval * 2).max(MIN_SYNC_LOOP_DURATION);
    match latest_loop_entry {
        Some(entered) if entered.elapsed() > allowed => Err(SyncLoopStuck),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn validate(status: &Value, container: &str, previous: bool) -> Result<String, String> {
        let status: PodStatus = serde_json::from_value(status.clone()).unwrap();
        validate_container_log_status("podName", &status, container, previous)
            .map_err(|error| error.to_string())
    }

    /// Upstream's `TestValidateContainerLogStatus`, with ids and texts.
    #[test]
    fn the_log_of_the_right_container_is_chosen() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": id}});
        let ended_without_id = json!({"terminated": {"exitCode": 0}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        let terminated = Err(r#"container "x" in pod "podName" is terminated"#);
        let not_started = |text| Err(text);
        let cases = [
            (running.clone(), ended("cri://last"), Ok("cri://now"), Some("cri://last")),
            (running, json!({}), Ok("cri://now"), None),
            (ended_without_id.clone(), json!({}), terminated, None),
            (ended("cri://ended"), json!({}), Ok("cri://ended"), None),
            (ended_without_id.clone(), ended_without_id.clone(), terminated, None),
            (ended_without_id.clone(), ended("cri://last"), Ok("cri://last"), Some("cri://last")),
            (waiting("CrashLoopBackOff"), ended("cri://last"), Ok("cri://last"), Some("cri://last")),
            (waiting("CrashLoopBackOff"), ended_without_id, terminated, None),
            (
                waiting("ContainerCreating"),
                json!({}),
                not_started(r#"container "x" in pod "podName" is waiting to start: ContainerCreating"#),
                None,
            ),
            (
                waiting("ErrImagePull"),
                json!({}),
                not_started(r#"container "x" in pod "podName" is waiting to start: image can't be pulled"#),
                None,
            ),
            (
                waiting("ImagePullBackOff"),
                json!({}),
                not_started(
                    r#"container "x" in pod "podName" is waiting to start: trying and failing to pull image"#,
                ),
                None,
            ),
            (
                json!({}),
                json!({}),
                not_started(r#"container "x" in pod "podName" is waiting to start - no logs yet"#),
                None,
            ),
        ];
        for (state, last_state, current, previous) in cases {
            let container = json!({
                "name": "x", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "containerID": "cri://now", "state": state, "lastState": last_state,
            });
            for kind in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
                let status = json!({kind: [container]});
                assert_eq!(validate(&status, "x", false), current.map(Into::into).map_err(Into::into));
                let missing = r#"previous terminated container "x" in pod "podName" not found"#;
                assert_eq!(
                    validate(&status, "x", true),
                    previous.map(Into::into).ok_or(missing.into()),
                    "{container}"
                );
                assert_eq!(
                    validate(&status, "blah", false),
                    Err(r#"container "blah" in pod "podName" is not available"#.into())
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_loop_is_stuck_after_two_intervals_but_not_within_five_minutes() {
        let minute = Duration::from_secs(60);
        let entered = Some(Instant::now());
        tokio::time::advance(5 * minute).await;
        assert_eq!(check_sync_loop(entered, minute), Ok(()));
        assert_eq!(check_sync_loop(None, minute), Ok(()));
        tokio::time::advance(minute).await;
        assert_eq!(check_sync_loop(entered, minute), Err(SyncLoopStuck));
        assert_eq!(check_sync_loop(entered, 10 * minute), Ok(()));
    }
}
