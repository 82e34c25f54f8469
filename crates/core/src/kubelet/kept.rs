//! What the kubelet keeps of pods, part by part: what must be empty once they are gone.

use super::Kubelet;
use crate::pod::{PodExt, PodUid};

impl Kubelet {
    /// Every part, and the pods of which it keeps something: UIDs, keys that begin with one, or container ids.
    pub fn kept(&self) -> Vec<(&'static str, Vec<String>)> {
        let text = |uids: Vec<PodUid>| uids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let desired = self.pod_manager.pods().iter().map(|pod| pod.uid()).collect();
        let results = &self.probe_results;
        let mut kept = vec![
            ("pod manager", text(desired)),
            ("pod workers", text(self.pod_workers.uids())),
            ("work queue", text(self.work_queue.keys())),
            ("pod cache", text(self.pod_cache.uids())),
            ("status manager", text(self.status_manager.uids())),
            ("probe workers", text(self.probe_manager.uids())),
            ("liveness results", results.liveness.container_ids()),
            ("readiness results", results.readiness.container_ids()),
            ("startup results", results.startup.container_ids()),
            ("reason cache", text(self.reason_cache.uids())),
            ("deadlines", text(self.active_deadlines.uids())),
            ("pending admissions", text(self.pending_admissions.uids())),
            ("resources that runtimes were told", self.runtime.actuated().uids()),
        ];
        kept.extend(self.runtime.kept());
        kept.extend(self.allocation_manager.kept());
        kept
    }
}
