//! How long pods take to start (upstream: `util/pod_startup_latency_tracker.go`, and `kubelet.go` for what a pod's first
//! sight begins).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::metrics::{
    CONTAINERS_PER_POD_COUNT, POD_START_DURATION, POD_START_SLI_DURATION, POD_START_TOTAL_DURATION,
    POD_WORKER_START_DURATION,
};
use crate::pod::{PodExt, PodUid, is_restartable_init_container, phase};

/// The pods that have yet to start.
#[derive(Default)]
pub struct PodStartupLatencyTracker(Mutex<HashMap<PodUid, Startup>>);

struct Startup {
    first_seen: Instant,
    has_worker: bool,
    is_running: bool,
    /// Pulls of its images: from, to.
    pulls: Vec<(Instant, Instant)>,
}

impl PodStartupLatencyTracker {
    /// A source has the pod for the first time. One that had started before the agent did is not followed.
    pub fn pod_added(&self, pod: &Pod) {
        let status = pod.pod_status();
        if status.start_time.is_some() || phase::is_terminal(pod.phase()) || pod.is_deleting() {
            return;
        }
        let startup =
            Startup { first_seen: Instant::now(), has_worker: false, is_running: false, pulls: Vec::new() };
        self.0.lock().entry(pod.uid()).or_insert(startup);
    }

    /// The pod's worker begins its first sync.
    pub fn worker_started(&self, pod: &Pod) {
        let mut pods = self.0.lock();
        let Some(startup) = pods.get_mut(&pod.uid()).filter(|startup| !startup.has_worker) else { return };
        startup.has_worker = true;
        POD_WORKER_START_DURATION.observe(startup.first_seen.elapsed().as_secs_f64());
        CONTAINERS_PER_POD_COUNT.observe(pod.containers().len() as f64);
    }

    /// An image of the pod was pulled, or could not be; that began then.
    pub fn image_pulled(&self, uid: &str, since: Instant) {
        if let Some(startup) = self.0.lock().get_mut(uid) {
            startup.pulls.push((since, Instant::now()));
        }
    }

    /// The pod has another status, which the world does not know yet.
    pub fn status_set(&self, uid: &str, status: &PodStatus) {
        let mut pods = self.0.lock();
        let phase = status.phase.as_deref().unwrap_or_default();
        if phase::is_terminal(phase) {
            pods.remove(uid);
            return;
        }
        let running = phase == phase::RUNNING;
        if let Some(startup) = pods.get_mut(uid).filter(|startup| running && !startup.is_running) {
            startup.is_running = true;
            POD_START_DURATION.observe(startup.first_seen.elapsed().as_secs_f64());
        }
    }

    /// The apiserver shows the pod (`ObservedPodOnWatch`). Once it shows that all containers run, the pod has started.
    pub fn observed_on_watch(&self, pod: &Pod) {
        let mut pods = self.0.lock();
        let uid = pod.uid();
        if !pods.get(&uid).is_some_and(|startup| startup.is_running && has_started(pod.pod_status())) {
            return;
        }
        let (Some(startup), Some(created)) = (pods.remove(&uid), pod.metadata.creation_timestamp.as_ref())
        else {
            return;
        };
        let total = since(clock::now(), created.0);
        POD_START_TOTAL_DURATION.observe(total.as_secs_f64());
        if !is_stateful(pod) {
            let others = pulling_time(startup.pulls).saturating_add(init_time(pod));
            POD_START_SLI_DURATION.observe(total.saturating_sub(others).as_secs_f64());
        }
    }

    /// Forgets pods that are gone.
    pub fn retain(&self, known: &HashSet<PodUid>) {
        self.0.lock().retain(|uid, _| known.contains(uid));
    }
}

fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// `hasPodStartedSLO`.
fn has_started(status: &PodStatus) -> bool {
    let mut containers = status.container_statuses.iter().flatten();
    containers
        .all(|c| c.state.as_ref().and_then(|s| s.running.as_ref()).is_some_and(|r| r.started_at.is_some()))
}

/// Whether it has volumes that may take their time (`isStatefulPod`).
fn is_stateful(pod: &Pod) -> bool {
    pod.pod_spec().volumes.iter().flatten().any(|volume| {
        volume.secret.is_none()
            && volume.config_map.is_none()
            && volume.downward_api.is_none()
            && volume.empty_dir.is_none()
            && volume.projected.is_none()
    })
}

/// The time in which images were pulled; several at a time count once (`calculateImagePullingTime`).
fn pulling_time(mut pulls: Vec<(Instant, Instant)>) -> Duration {
    pulls.sort_unstable();
    let (mut total, mut until) = (Duration::ZERO, None);
    for (from, to) in pulls {
        let from = until.map_or(from, |until: Instant| from.max(until));
        total += to.saturating_duration_since(from);
        until = until.max(Some(to));
    }
    total
}

/// The time in which init containers ran; they do so one after another.
fn init_time(pod: &Pod) -> Duration {
    let is_sidecar =
        |name: &str| pod.init_containers().iter().any(|c| c.name == name && is_restartable_init_container(c));
    let statuses = pod.pod_status().init_container_statuses.iter().flatten();
    let ended = statuses.filter(|status| !is_sidecar(&status.name)).filter_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        Some(since(ended.finished_at.as_ref()?.0, ended.started_at.as_ref()?.0))
    });
    ended.sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, status: Value) -> Pod {
        let created = Timestamp::now() - jiff::SignedDuration::from_secs(30);
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "ns", "uid": uid, "creationTimestamp": created.to_string()},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
            "status": status,
        }))
        .unwrap()
    }

    /// Metrics are the process's, so this is one test.
    #[tokio::test(start_paused = true)]
    async fn a_start_is_measured_once_without_pulls_and_init_containers() {
        let tracker = PodStartupLatencyTracker::default();
        let new = pod("startup-a", json!({"phase": "Pending"}));
        let uid = new.uid();
        let before = (POD_START_SLI_DURATION.get_sample_sum(), POD_START_TOTAL_DURATION.get_sample_sum());
        tracker.pod_added(&new);
        tracker.worker_started(&new);
        tracker.worker_started(&new);
        let pull = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        tracker.image_pulled(&uid, pull);
        tracker.image_pulled(&uid, pull);
        let started = json!({
            "phase": "Running",
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-01T00:00:00Z"}},
            }],
            "initContainerStatuses": [{
                "name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": 0, "startedAt": "2026-11-01T00:00:00Z", "finishedAt": "2026-11-01T00:00:10Z",
                }},
            }],
        });
        let started = pod("startup-a", started);
        tracker.observed_on_watch(&started);
        assert_eq!(POD_START_TOTAL_DURATION.get_sample_sum(), before.1, "not our news");
        tracker.status_set(&uid, started.pod_status());
        tracker.observed_on_watch(&started);
        tracker.observed_on_watch(&started);
        let (sli, total) = (
            POD_START_SLI_DURATION.get_sample_sum() - before.0,
            POD_START_TOTAL_DURATION.get_sample_sum() - before.1,
        );
        assert!((30.0..40.0).contains(&total), "{total}");
        assert!((total - sli - 15.0).abs() < 0.1, "{total} {sli}");
        assert!(tracker.0.lock().is_empty());
    }

    #[test]
    fn pods_that_started_before_or_ended_are_not_followed() {
        let tracker = PodStartupLatencyTracker::default();
        tracker.pod_added(&pod("b", json!({"phase": "Running", "startTime": "2026-11-01T00:00:00Z"})));
        assert!(tracker.0.lock().is_empty());
        let new = pod("c", json!({"phase": "Pending"}));
        tracker.pod_added(&new);
        tracker.status_set("c", &PodStatus { phase: Some("Failed".to_owned()), ..PodStatus::default() });
        assert!(tracker.0.lock().is_empty());
        tracker.pod_added(&new);
        tracker.retain(&HashSet::new());
        assert!(tracker.0.lock().is_empty());
    }
}
