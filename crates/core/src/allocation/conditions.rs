//! The conditions PodResizePending and PodResizeInProgress (upstream keeps them in `status/status_manager.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use parking_lot::Mutex;

use crate::clock::api_now;
use crate::pod::{PodExt, PodUid};

/// A resize that has not been allocated.
pub(crate) const POD_RESIZE_PENDING: &str = "PodResizePending";
/// A resize that was allocated and is not in effect everywhere.
pub(crate) const POD_RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// There is no room now; there may be later.
pub(crate) const DEFERRED: &str = "Deferred";
/// This node can never do it.
pub(crate) const INFEASIBLE: &str = "Infeasible";
/// The runtime did not take it.
pub(crate) const ERROR: &str = "Error";

/// How far the resizes of all pods have come.
#[derive(Default)]
pub struct ResizeConditions {
    pods: Mutex<BTreeMap<PodUid, PodResizeConditions>>,
}

#[derive(Clone, Default)]
struct PodResizeConditions {
    pending: Option<PodCondition>,
    in_progress: Option<PodCondition>,
}

impl ResizeConditions {
    /// The conditions of a pod (`GetPodResizeConditions`).
    pub fn get(&self, uid: &str) -> Vec<PodCondition> {
        let found = self.pods.lock().get(uid).cloned().unwrap_or_default();
        found.pending.into_iter().chain(found.in_progress).collect()
    }

    /// The pod waits. Every reason but [`INFEASIBLE`] means that it may work out later. Answers whether reason or
    /// generation are new (`SetPodResizePendingCondition`).
    pub fn set_pending(&self, uid: &PodUid, reason: &str, message: &str, generation: Option<i64>) -> bool {
        let reason = if reason == INFEASIBLE { INFEASIBLE } else { DEFERRED };
        let mut pods = self.pods.lock();
        let pending = &mut pods.entry(uid.clone()).or_default().pending;
        let new = updated(POD_RESIZE_PENDING, pending.as_ref(), reason, message, generation);
        let old = pending.replace(new);
        old.is_none_or(|old| old.reason.as_deref() != Some(reason) || old.observed_generation != generation)
    }

    /// The resize is under way. What it failed with stays until it is over, and so does the generation that it is for.
    /// Answers that generation, and whether anything is new (`SetPodResizeInProgressCondition`).
    pub fn set_in_progress(
        &self,
        uid: &PodUid,
        failure: Option<(&str, &str)>,
        generation: Option<i64>,
    ) -> (Option<i64>, bool) {
        let mut pods = self.pods.lock();
        let in_progress = &mut pods.entry(uid.clone()).or_default().in_progress;
        let old = in_progress.clone();
        let kept = |field: fn(&PodCondition) -> &Option<String>| old.as_ref().and_then(|c| field(c).clone());
        let (reason, message) = match failure {
            Some((reason, message)) => (reason.to_owned(), message.to_owned()),
            None => (kept(|c| &c.reason).unwrap_or_default(), kept(|c| &c.message).unwrap_or_default()),
        };
        let generation = old.as_ref().map_or(generation, |old| old.observed_generation);
        let new = updated(POD_RESIZE_IN_PROGRESS, old.as_ref(), &reason, &message, generation);
        let changed = old.is_none_or(|old| old.reason != new.reason || old.message != new.message);
        *in_progress = Some(new);
        (generation, changed)
    }

    /// The pod waits no more.
    pub fn clear_pending(&self, uid: &str) {
        if let Some(pod) = self.pods.lock().get_mut(uid) {
            pod.pending = None;
        }
    }

    /// Nothing is under way any more. Answers the generation that it was for, if something was.
    pub fn clear_in_progress(&self, uid: &str) -> Option<Option<i64>> {
        let cleared = self.pods.lock().get_mut(uid)?.in_progress.take()?;
        Some(cleared.observed_generation)
    }

    /// Whether the pod waits for room.
    pub fn is_deferred(&self, uid: &str) -> bool {
        self.pending_reason(uid).as_deref() == Some(DEFERRED)
    }

    /// Whether the pod's resize can never work here.
    pub fn is_infeasible(&self, uid: &str) -> bool {
        self.pending_reason(uid).as_deref() == Some(INFEASIBLE)
    }

    fn pending_reason(&self, uid: &str) -> Option<String> {
        self.pods.lock().get(uid)?.pending.as_ref()?.reason.clone()
    }

    /// Goes on from what the API says of a pod (`BackfillPodResizeConditions`).
    pub fn backfill(&self, pod: &Pod) {
        for condition in pod.pod_status().conditions.iter().flatten() {
            let mut pods = self.pods.lock();
            match condition.type_.as_str() {
                POD_RESIZE_PENDING => pods.entry(pod.uid()).or_default().pending = Some(condition.clone()),
                POD_RESIZE_IN_PROGRESS => {
                    pods.entry(pod.uid()).or_default().in_progress = Some(condition.clone());
                }
                _ => {}
            }
        }
    }

    /// Of whom there are any.
    #[cfg(feature = "simulation")]
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        self.pods.lock().keys().cloned().collect()
    }

    /// Forgets all pods but those that `keep` says.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.pods.lock().retain(|uid, _| keep(uid));
    }
}

fn updated(
    kind: &str,
    old: Option<&PodCondition>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> PodCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let reason = text(reason);
    let same = old.filter(|old| old.reason == reason);
    PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        last_probe_time: Some(api_now()),
        last_transition_time: same
            .and_then(|old| old.last_transition_time.clone())
            .or_else(|| Some(api_now())),
        observed_generation: generation,
        reason,
        message: text(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pending_resize_is_news_once() {
        let conditions = ResizeConditions::default();
        let uid = PodUid::from("u");
        assert!(conditions.set_pending(&uid, "OutOfcpu", "no cpu", Some(2)));
        assert!(conditions.is_deferred("u") && !conditions.is_infeasible("u"));
        let first = conditions.get("u")[0].clone();
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert!(!conditions.set_pending(&uid, "OutOfmemory", "no memory", Some(2)), "deferred all the same");
        assert_eq!(conditions.get("u")[0].last_transition_time, first.last_transition_time);
        assert_eq!(conditions.get("u")[0].message.as_deref(), Some("no memory"));
        assert!(conditions.set_pending(&uid, "OutOfcpu", "no cpu", Some(3)));
        assert!(conditions.set_pending(&uid, INFEASIBLE, "never", Some(3)));
        assert_ne!(conditions.get("u")[0].last_transition_time, first.last_transition_time);
        conditions.clear_pending("u");
        assert!(conditions.get("u").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resize_in_progress_keeps_its_generation_and_its_failure() {
        let conditions = ResizeConditions::default();
        let uid = PodUid::from("u");
        assert_eq!(conditions.set_in_progress(&uid, None, Some(2)), (Some(2), true));
        assert_eq!(conditions.set_in_progress(&uid, None, Some(3)), (Some(2), false));
        assert_eq!(conditions.set_in_progress(&uid, Some((ERROR, "no")), Some(3)), (Some(2), true));
        assert_eq!(conditions.set_in_progress(&uid, None, Some(3)), (Some(2), false));
        assert_eq!(conditions.get("u")[0].reason.as_deref(), Some(ERROR));
        assert_eq!(conditions.clear_in_progress("u"), Some(Some(2)));
        assert_eq!(conditions.clear_in_progress("u"), None);
    }
}
