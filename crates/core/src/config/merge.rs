//! Telling what an update of a source changes (upstream: `podStorage.merge`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::{
    CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_SOURCE_ANNOTATION, PodExt, PodUid,
};
use crate::ports::{SourceKind, SourceUpdate};

/// What happened to pods (`PodOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodOperation {
    /// They are new.
    Add,
    /// Something that the kubelet acts on changed.
    Update,
    /// They are to end, gracefully.
    Delete,
    /// They are gone from the source.
    Remove,
    /// Only their status changed.
    Reconcile,
}

/// Some pods of one source, and what happened to them.
#[derive(Clone, Debug)]
pub struct PodUpdate {
    /// The pods, as the source has them now.
    pub pods: Vec<Arc<Pod>>,
    /// What happened.
    pub op: PodOperation,
    /// Which source.
    pub source: SourceKind,
}

/// The pods of one source.
#[derive(Debug)]
pub(super) struct Merger {
    source: SourceKind,
    pods: BTreeMap<PodUid, Arc<Pod>>,
}

impl Merger {
    pub(super) fn new(source: SourceKind) -> Self {
        Self { source, pods: BTreeMap::new() }
    }

    /// Takes an update in and answers what it changes. A first `Set` without pods still answers something: that the
    /// source has spoken is news.
    pub(super) fn merge(&mut self, update: SourceUpdate) -> Vec<PodUpdate> {
        let mut changes: BTreeMap<PodOperation, Vec<Arc<Pod>>> = BTreeMap::new();
        match update {
            SourceUpdate::Set(pods) => {
                let wanted: HashSet<PodUid> = pods.iter().map(|p| p.uid()).collect();
                let gone: Vec<PodUid> =
                    self.pods.keys().filter(|uid| !wanted.contains(*uid)).cloned().collect();
                let gone = gone.iter().filter_map(|uid| self.pods.remove(uid)).collect::<Vec<_>>();
                changes.insert(PodOperation::Remove, gone);
                changes.insert(PodOperation::Add, Vec::new());
                for pod in pods {
                    self.apply(pod, &mut changes);
                }
            }
            SourceUpdate::Apply(pod) => self.apply(pod, &mut changes),
            SourceUpdate::Delete(pod) => {
                if let Some(pod) = self.pods.remove(&pod.uid()) {
                    changes.entry(PodOperation::Remove).or_default().push(pod);
                }
            }
        }
        // Removals first: a pod that was replaced by another of its name makes room before that one comes.
        let order = [
            PodOperation::Remove,
            PodOperation::Add,
            PodOperation::Update,
            PodOperation::Delete,
            PodOperation::Reconcile,
        ];
        let source = self.source;
        order
            .into_iter()
            .filter_map(|op| changes.remove(&op).map(|pods| PodUpdate { pods, op, source }))
            .filter(|update| !update.pods.is_empty() || update.op == PodOperation::Add)
            .collect()
    }

    fn apply(&mut self, pod: Arc<Pod>, changes: &mut BTreeMap<PodOperation, Vec<Arc<Pod>>>) {
        let old = self.pods.insert(pod.uid(), pod.clone());
        let op = match old {
            None => PodOperation::Add,
            Some(old) if differ_semantically(&old, &pod) && pod.is_deleting() => PodOperation::Delete,
            Some(old) if differ_semantically(&old, &pod) => PodOperation::Update,
            Some(old) if old.status != pod.status => PodOperation::Reconcile,
            Some(_) => return,
        };
        changes.entry(op).or_default().push(pod);
    }
}

/// Whether anything differs that the kubelet acts on (`podsDifferSemantically`).
fn differ_semantically(old: &Pod, new: &Pod) -> bool {
    let (a, b) = (&old.metadata, &new.metadata);
    // The apiserver counts changes of the spec, which saves comparing it.
    let same_spec = match (a.generation, b.generation) {
        (Some(a), Some(b)) if a > 0 => a == b,
        _ => old.spec == new.spec,
    };
    !same_spec
        || a.labels != b.labels
        || a.deletion_timestamp != b.deletion_timestamp
        || a.deletion_grace_period_seconds != b.deletion_grace_period_seconds
        || foreign_annotations(old) != foreign_annotations(new)
}

/// Annotations but for those that the kubelet makes itself (`localAnnotations`).
fn foreign_annotations(pod: &Pod) -> Vec<(&String, &String)> {
    let local = [CONFIG_SOURCE_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_HASH_ANNOTATION];
    pod.metadata.annotations.iter().flatten().filter(|(key, _)| !local.contains(&key.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    fn pod(uid: &str, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        let metadata = ObjectMeta { uid: Some(uid.into()), generation: Some(1), ..ObjectMeta::default() };
        let mut pod = Pod { metadata, ..Pod::default() };
        change(&mut pod);
        Arc::new(pod)
    }

    fn ops(updates: &[PodUpdate]) -> Vec<(PodOperation, Vec<String>)> {
        updates.iter().map(|u| (u.op, u.pods.iter().map(|p| p.uid().to_string()).collect())).collect()
    }

    #[test]
    fn a_source_that_has_nothing_has_spoken_all_the_same() {
        let mut merger = Merger::new(SourceKind::Api);
        assert_eq!(ops(&merger.merge(SourceUpdate::Set(vec![]))), [(PodOperation::Add, vec![])]);
    }

    #[test]
    fn a_list_removes_what_is_not_in_it() {
        let mut merger = Merger::new(SourceKind::Api);
        merger.merge(SourceUpdate::Set(vec![pod("a", |_| ()), pod("b", |_| ())]));
        let updates = merger.merge(SourceUpdate::Set(vec![pod("b", |_| ()), pod("c", |_| ())]));
        let expected =
            [(PodOperation::Remove, vec!["a".to_owned()]), (PodOperation::Add, vec!["c".to_owned()])];
        assert_eq!(ops(&updates), expected);
    }

    #[test]
    fn tells_changes_apart() {
        use PodOperation::{Add, Delete, Reconcile, Remove, Update};
        let mut merger = Merger::new(SourceKind::Api);
        let mut apply = |pod| ops(&merger.merge(SourceUpdate::Apply(pod))).first().map(|(op, _)| *op);
        assert_eq!(apply(pod("a", |_| ())), Some(Add));
        assert_eq!(apply(pod("a", |_| ())), None);
        assert_eq!(apply(pod("a", |p| p.status = Some(PodStatus::default()))), Some(Reconcile));
        let label = |p: &mut Pod| p.metadata.labels = Some([("k".into(), "v".into())].into());
        assert_eq!(apply(pod("a", label)), Some(Update));
        let deleting = |p: &mut Pod| {
            label(p);
            p.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        };
        assert_eq!(apply(pod("a", deleting)), Some(Delete));
        let updates = merger.merge(SourceUpdate::Delete(pod("a", deleting)));
        assert_eq!(ops(&updates), [(Remove, vec!["a".to_owned()])]);
        assert!(merger.merge(SourceUpdate::Delete(pod("a", deleting))).is_empty());
    }
}
