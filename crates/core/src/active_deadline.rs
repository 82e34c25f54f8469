//! Pods that may be active for so long only (upstream: `pkg/kubelet/active_deadline.go`).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::clock;
use crate::pod::{PodExt, PodUid, phase};
use crate::recorder::{Recorder, reason};
use crate::status::StatusManager;
use crate::work_queue::WorkQueue;

/// Why a pod has to end (`ShouldEvictResponse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// One word.
    pub reason: &'static str,
    /// One line.
    pub message: &'static str,
}

const DEADLINE_EXCEEDED: Eviction = Eviction {
    reason: reason::DEADLINE_EXCEEDED,
    message: "Pod was active on the node longer than the specified deadline",
};

/// Knows when pods have to end.
pub struct ActiveDeadlineHandler {
    status_manager: Arc<StatusManager>,
    recorder: Recorder,
    deadlines: WorkQueue,
}

impl ActiveDeadlineHandler {
    /// Goes by the start times that `status_manager` has.
    pub fn new(status_manager: Arc<StatusManager>, recorder: Recorder) -> Self {
        Self { status_manager, recorder, deadlines: WorkQueue::default() }
    }

    /// Waits for pods whose deadline has come. Dropping the future forgets nothing.
    pub async fn due(&self) -> Vec<PodUid> {
        self.deadlines.due().await
    }

    /// Whose deadlines are waited for.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        self.deadlines.keys()
    }

    /// Makes a pod due at its deadline. One that has none is not.
    pub fn schedule(&self, pod: &Pod) {
        match self.remaining(pod) {
            Some(remaining) => {
                self.deadlines.enqueue(pod.uid(), Duration::try_from(remaining).unwrap_or_default());
            }
            None => self.deadlines.remove(&pod.uid()),
        }
    }

    /// The pod is looked at no more.
    pub fn forget(&self, uid: &PodUid) {
        self.deadlines.remove(uid);
    }

    /// Whether the pod has been active for too long; says so once.
    pub fn should_evict(&self, pod: &Pod) -> Option<Eviction> {
        self.remaining(pod).filter(|remaining| *remaining <= SignedDuration::ZERO)?;
        let status = self.status_manager.get_pod_status(&pod.uid());
        let ended = |s: &PodStatus| phase::is_terminal(s.phase.as_deref().unwrap_or_default());
        if !status.as_deref().is_some_and(ended) {
            self.recorder.normal(pod, DEADLINE_EXCEEDED.reason, DEADLINE_EXCEEDED.message);
        }
        Some(DEADLINE_EXCEEDED)
    }

    /// The time until the deadline, negative after it; none for a pod without one, or that has not started.
    fn remaining(&self, pod: &Pod) -> Option<SignedDuration> {
        let allowed = pod.pod_spec().active_deadline_seconds?;
        let status = self.status_manager.get_pod_status(&pod.uid());
        let status = status.as_deref().unwrap_or(pod.pod_status());
        let started: Timestamp = status.start_time.as_ref()?.0;
        Some(SignedDuration::from_secs(allowed) - clock::now().duration_since(started))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::api_now;
    use crate::fakes::FakeSink;
    use crate::pod_manager::PodManager;

    fn handler() -> (ActiveDeadlineHandler, Arc<FakeSink>) {
        let sink = Arc::<FakeSink>::default();
        let statuses = Arc::new(StatusManager::new(sink.clone(), Arc::<PodManager>::default()));
        (ActiveDeadlineHandler::new(statuses, Recorder::new(sink.clone())), sink)
    }

    fn pod(uid: &str, deadline: Option<i64>, started: bool) -> Arc<Pod> {
        let spec = json!({"activeDeadlineSeconds": deadline, "containers": []});
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap();
        pod.status.get_or_insert_default().start_time = started.then(api_now);
        Arc::new(pod)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_ends_at_its_deadline_and_not_before() {
        let cases = [
            (pod("a", Some(30), true), 29, false),
            (pod("a", Some(30), true), 30, true),
            (pod("a", Some(30), false), 100, false),
            (pod("a", None, true), 100, false),
        ];
        for (pod, after, expected) in cases {
            let (handler, sink) = handler();
            tokio::time::advance(Duration::from_secs(after)).await;
            // Stamps are in whole seconds.
            tokio::time::advance(Duration::from_secs(u64::from(expected))).await;
            assert_eq!(handler.should_evict(&pod).is_some(), expected, "{after} {:?}", pod.spec);
            let event = "DeadlineExceeded: Pod was active on the node longer than the specified deadline";
            assert_eq!(sink.told(), if expected { vec![event] } else { vec![] });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_looked_at_when_its_deadline_comes_and_told_of_once() {
        let (handler, sink) = handler();
        let pod = pod("a", Some(30), true);
        handler.status_manager.set_pod_status(&pod, pod.status.clone().unwrap());
        handler.schedule(&pod);
        let begun = tokio::time::Instant::now();
        assert_eq!(handler.due().await, [PodUid::from("a")]);
        assert!((29..=30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        let Eviction { reason, message } = handler.should_evict(&pod).unwrap();
        let status = PodStatus {
            phase: Some("Failed".into()),
            reason: Some(reason.into()),
            message: Some(message.into()),
            ..PodStatus::default()
        };
        handler.status_manager.set_pod_status(&pod, status);
        assert!(handler.should_evict(&pod).is_some());
        assert_eq!(sink.told().len(), 1);
    }
}
