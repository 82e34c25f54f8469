//! What must hold of one status after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_core::pod::{PodExt, phase};
use k8s_openapi::api::core::v1::Pod;

use super::Broken;
use crate::history::Shown;

/// What the API has been told of a pod.
#[derive(Default)]
pub(super) struct Statuses {
    phase: String,
    restarts: BTreeMap<String, i32>,
    /// Containers that have ended.
    ended: BTreeSet<String>,
    started: Option<Duration>,
    /// It was not admitted.
    pub(super) rejected: bool,
}

impl Statuses {
    /// There is another object of the pod, or another life.
    pub(super) fn begin_anew(&mut self) {
        self.phase.clear();
        self.restarts.clear();
        self.started = None;
        self.rejected = false;
    }

    /// When the pod has to end, since the beginning.
    pub(super) fn deadline(&self, pod: &Pod) -> Option<Duration> {
        let allowed = u64::try_from(pod.pod_spec().active_deadline_seconds?).ok()?;
        Some(self.started? + Duration::from_secs(allowed))
    }

    /// Takes a status in. Of a pod that `lived_before` it may be the first of its new life. One that `counts_anew` may
    /// have begun to count its restarts from the start.
    pub(super) fn take(
        &mut self,
        uid: &str,
        shown: &Shown,
        lived_before: bool,
        counts_anew: impl Fn(&str) -> bool,
    ) -> Option<Broken> {
        self.rejected |= shown.rejected;
        self.started = shown.started.or(self.started);
        self.belongs(uid, shown)
            .or_else(|| self.changes_phase(&shown.phase).filter(|_| !lived_before))
            .or_else(|| self.counts_restarts(&shown.restarts, &counts_anew))
            .or_else(|| self.revives(shown))
    }

    fn belongs(&self, uid: &str, shown: &Shown) -> Option<Broken> {
        const RULE: &str = "a status belongs to one UID";
        if shown.onto != uid {
            return Some((RULE, format!("it was written onto {}", shown.onto)));
        }
        let own = format!("//{uid}-");
        let foreign = shown.running.iter().chain(&shown.ended).find(|id| !id.contains(&own))?;
        Some((RULE, format!("it has {foreign}")))
    }

    fn changes_phase(&mut self, new: &str) -> Option<Broken> {
        let old = std::mem::replace(&mut self.phase, new.to_owned());
        let reverts = phase::is_terminal(&old) && old != new;
        reverts.then(|| ("a terminal phase never changes", format!("{old} became {new:?}")))
    }

    fn counts_restarts(
        &mut self,
        restarts: &[(String, i32)],
        counts_anew: &impl Fn(&str) -> bool,
    ) -> Option<Broken> {
        for (name, count) in restarts {
            let before = self.restarts.insert(name.clone(), *count).unwrap_or_default();
            if *count < before && !counts_anew(name) {
                let message = format!("{name} was restarted {before} times and then {count}");
                return Some(("restart counts never fall", message));
            }
        }
        None
    }

    fn revives(&mut self, shown: &Shown) -> Option<Broken> {
        if let Some(id) = shown.running.iter().find(|id| self.ended.contains(*id)) {
            return Some(("what has ended does not run again", format!("{id} is said to run")));
        }
        self.ended.extend(shown.ended.iter().cloned());
        None
    }
}
