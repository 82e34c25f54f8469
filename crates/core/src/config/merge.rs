//! Telling what an update of a source changes (upstream: `podStorage.merge`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::warn;

use crate::clock;
use crate::pod::{
    CONFIG_FIRST_SEEN_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_SOURCE_ANNOTATION, PodExt, PodUid,
};
use crate::ports::{SourceKind, SourceUpdate};
use crate::recorder::{Recorder, reason};

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
pub(super) struct Merger {
    source: SourceKind,
    recorder: Recorder,
    pods: BTreeMap<PodUid, Arc<Pod>>,
    /// It has said which pods there are.
    has_spoken: bool,
}

impl Merger {
    pub(super) fn new(source: SourceKind, recorder: Recorder) -> Self {
        Self { source, recorder, pods: BTreeMap::new(), has_spoken: false }
    }

    /// Takes an update in and answers what it changes. A first `Set` without pods still answers something: that the
    /// source has spoken is news.
    pub(super) fn merge(&mut self, update: SourceUpdate) -> Vec<PodUpdate> {
        let mut changes: BTreeMap<PodOperation, Vec<Arc<Pod>>> = BTreeMap::new();
        let mut speaks_first = false;
        match update {
            SourceUpdate::Set(pods) => {
                speaks_first = !std::mem::replace(&mut self.has_spoken, true);
                let pods = self.without_duplicates(pods);
                let wanted: HashSet<PodUid> = pods.iter().map(|p| p.uid()).collect();
                let gone: Vec<PodUid> =
                    self.pods.keys().filter(|uid| !wanted.contains(*uid)).cloned().collect();
                let gone = gone.iter().filter_map(|uid| self.pods.remove(uid)).collect::<Vec<_>>();
                changes.insert(PodOperation::Remove, gone);
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
        if speaks_first {
            changes.entry(PodOperation::Add).or_default();
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

    /// Of several pods with the same name only the first counts (`filterInvalidPods`).
    fn without_duplicates(&self, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let mut names = HashSet::new();
        let is_first = |pod: &Arc<Pod>| {
            let is_first = names.insert(pod.full_name());
            if !is_first {
                let message = format!(
                    "Error validating pod {}({}) from {} due to duplicate pod name {:?}, ignoring",
                    pod.full_name(),
                    pod.uid(),
                    self.source,
                    pod.name()
                );
                warn!("{message}");
                self.recorder.warning(pod, reason::FAILED_VALIDATION, message);
            }
            is_first
        };
        pods.into_iter().filter(is_first).collect()
    }

    /// Says on the pod where it is from and when it was first seen, whatever it says itself; a mirror pod stays one
    /// (`updateAnnotations`).
    fn annotate(&self, pod: &mut Arc<Pod>) {
        let old = self.pods.get(&pod.uid());
        let old = |key| old.and_then(|pod| pod.annotation(key)).map(str::to_owned);
        let (seen, mirror) = (old(CONFIG_FIRST_SEEN_ANNOTATION), old(CONFIG_MIRROR_ANNOTATION));
        let annotations = Arc::make_mut(pod).metadata.annotations.get_or_insert_default();
        annotations.insert(CONFIG_SOURCE_ANNOTATION.to_owned(), self.source.as_str().to_owned());
        let seen = seen.unwrap_or_else(|| clock::now().to_string());
        annotations.insert(CONFIG_FIRST_SEEN_ANNOTATION.to_owned(), seen);
        if let Some(mirror) = mirror {
            annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), mirror);
        }
    }

    fn apply(&mut self, mut pod: Arc<Pod>, changes: &mut BTreeMap<PodOperation, Vec<Arc<Pod>>>) {
        self.annotate(&mut pod);
        let old = self.pods.insert(pod.uid(), pod.clone());
        let differ = |old: &Pod| differ_semantically(self.source, old, &pod);
        let op = match old {
            None => PodOperation::Add,
            Some(old) if differ(&old) && pod.is_deleting() => PodOperation::Delete,
            Some(old) if differ(&old) => PodOperation::Update,
            Some(old) if old.status != pod.status => PodOperation::Reconcile,
            Some(_) => return,
        };
        changes.entry(op).or_default().push(pod);
    }
}

/// Whether anything differs that the kubelet acts on (`podsDifferSemantically`).
fn differ_semantically(source: SourceKind, old: &Pod, new: &Pod) -> bool {
    let (a, b) = (&old.metadata, &new.metadata);
    // The apiserver counts changes of the spec, which saves comparing it.
    let same_spec = match (a.generation, b.generation) {
        (Some(a), Some(b)) if a > 0 && source == SourceKind::Api => a == b,
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
    let local = [CONFIG_SOURCE_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_FIRST_SEEN_ANNOTATION];
    pod.metadata.annotations.iter().flatten().filter(|(key, _)| !local.contains(&key.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;
    use crate::fakes::FakeSink;

    fn merger(source: SourceKind) -> Merger {
        Merger::new(source, Recorder::new(Arc::new(FakeSink::default())))
    }

    fn pod(uid: &str, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        let metadata = ObjectMeta {
            uid: Some(uid.into()),
            namespace: Some("new".into()),
            name: Some(uid.into()),
            generation: Some(1),
            ..ObjectMeta::default()
        };
        let mut pod = Pod { metadata, ..Pod::default() };
        change(&mut pod);
        Arc::new(pod)
    }

    fn ops(updates: &[PodUpdate]) -> Vec<(PodOperation, Vec<String>)> {
        updates.iter().map(|u| (u.op, u.pods.iter().map(|p| p.uid().to_string()).collect())).collect()
    }

    #[test]
    fn a_source_that_has_nothing_has_spoken_all_the_same() {
        let mut merger = merger(SourceKind::Api);
        assert_eq!(ops(&merger.merge(SourceUpdate::Set(vec![]))), [(PodOperation::Add, vec![])]);
    }

    #[test]
    fn a_list_removes_what_is_not_in_it() {
        let mut merger = merger(SourceKind::Api);
        merger.merge(SourceUpdate::Set(vec![pod("a", |_| ()), pod("b", |_| ())]));
        let updates = merger.merge(SourceUpdate::Set(vec![pod("b", |_| ()), pod("c", |_| ())]));
        let expected =
            [(PodOperation::Remove, vec!["a".to_owned()]), (PodOperation::Add, vec!["c".to_owned()])];
        assert_eq!(ops(&updates), expected);
    }

    #[test]
    fn tells_changes_apart() {
        use PodOperation::{Add, Delete, Reconcile, Remove, Update};
        let mut merger = merger(SourceKind::Api);
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
    fn annotate(key: &str, value: &str) -> impl Fn(&mut Pod) {
        move |pod| {
            pod.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        }
    }

    /// `TestNewPodAddedUpdatedSet`, `TestNewPodAddedSetReconciled` and `TestInitialEmptySet`.
    #[test]
    fn lists_are_told_as_changes() {
        use PodOperation::{Add, Reconcile, Remove, Update};
        let image = |image: &'static str| {
            move |pod: &mut Pod| {
                let container =
                    k8s_openapi::api::core::v1::Container { image: Some(image.into()), ..Default::default() };
                pod.spec.get_or_insert_default().containers = vec![container];
            }
        };
        let plain = |uid| pod(uid, |_| ());
        let mut merger = merger(SourceKind::File);
        let mut set = |pods: Vec<Arc<Pod>>| {
            let updates = ops(&merger.merge(SourceUpdate::Set(pods)));
            updates.into_iter().map(|(op, uids)| (op, uids.join(" "))).collect::<Vec<_>>()
        };
        let all = || vec![plain("foo"), plain("foo2"), plain("foo3")];
        assert_eq!(set(all()), [(Add, "foo foo2 foo3".to_owned())]);
        assert_eq!(set(all()), []);
        // Changes of the spec are seen although the manifest's generation stays.
        let next = || vec![pod("foo2", image("test")), plain("foo3"), plain("foo4")];
        let expected = [(Remove, "foo".to_owned()), (Add, "foo4".to_owned()), (Update, "foo2".to_owned())];
        assert_eq!(set(next()), expected);
        let message = |p: &mut Pod| p.status.get_or_insert_default().message = Some("m".into());
        let told = vec![pod("foo2", image("test")), pod("foo3", message), plain("foo4")];
        assert_eq!(set(told), [(Reconcile, "foo3".to_owned())]);
        assert_eq!(set(vec![]), [(Remove, "foo2 foo3 foo4".to_owned())]);
        assert_eq!(set(vec![]), []);
        assert_eq!(set(vec![plain("foo")]), [(Add, "foo".to_owned())]);
    }

    /// `TestPodUpdateAnnotations` and `TestPodUpdateLabels`.
    #[test]
    fn annotations_of_others_matter() {
        let mut merger = merger(SourceKind::File);
        let mut set = |pod: Arc<Pod>| ops(&merger.merge(SourceUpdate::Set(vec![pod]))).first().map(|u| u.0);
        let blah = annotate("kubernetes.io/blah", "blah");
        assert_eq!(set(pod("a", &blah)), Some(PodOperation::Add));
        assert_eq!(set(pod("a", &blah)), None);
        assert_eq!(set(pod("a", annotate("kubernetes.io/blah", "superblah"))), Some(PodOperation::Update));
        let two = |p: &mut Pod| {
            annotate("kubernetes.io/blah", "superblah")(p);
            annotate("kubernetes.io/otherblah", "doh")(p);
        };
        assert_eq!(set(pod("a", two)), Some(PodOperation::Update));
        assert_eq!(set(pod("a", annotate("kubernetes.io/otherblah", "doh"))), Some(PodOperation::Update));
        for local in [CONFIG_SOURCE_ANNOTATION, CONFIG_FIRST_SEEN_ANNOTATION] {
            let local = |p: &mut Pod| {
                annotate("kubernetes.io/otherblah", "doh")(p);
                annotate(local, "other")(p);
            };
            assert_eq!(set(pod("a", local)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_and_the_first_sight_are_this_kubelets_own_words() {
        let mut merger = merger(SourceKind::Api);
        let mut apply = |pod: Arc<Pod>| merger.merge(SourceUpdate::Apply(pod)).remove(0).pods.remove(0);
        let posing = apply(pod("a", annotate(CONFIG_SOURCE_ANNOTATION, "file")));
        assert!(!posing.is_static(), "a pod of the apiserver cannot pose as a static one");
        let seen = posing.annotation(CONFIG_FIRST_SEEN_ANNOTATION).unwrap().to_owned();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let labelled = |p: &mut Pod| p.metadata.labels = Some([("k".into(), "v".into())].into());
        assert_eq!(apply(pod("a", labelled)).annotation(CONFIG_FIRST_SEEN_ANNOTATION), Some(&*seen));
        let mirror = apply(pod("b", annotate(CONFIG_MIRROR_ANNOTATION, "hash")));
        assert!(mirror.is_mirror());
        assert!(apply(pod("b", labelled)).is_mirror(), "a mirror pod never becomes one that would run");
    }

    /// `TestNewPodAddedDifferentNamespaces`.
    #[test]
    fn the_same_name_in_another_namespace_is_another_one() {
        let elsewhere = pod("b", |p| {
            p.metadata.name = Some("a".into());
            p.metadata.namespace = Some("default".into());
        });
        let updates = merger(SourceKind::Http).merge(SourceUpdate::Set(vec![pod("a", |_| ()), elsewhere]));
        assert_eq!(ops(&updates), [(PodOperation::Add, vec!["a".to_owned(), "b".to_owned()])]);
    }

    /// `TestInvalidPodFiltered`.
    #[test]
    fn a_name_is_taken_once() {
        let sink = Arc::new(FakeSink::default());
        let mut merger = Merger::new(SourceKind::Http, Recorder::new(sink.clone()));
        let named = |uid: &str| pod(uid, |p| p.metadata.name = Some("same".into()));
        let updates = merger.merge(SourceUpdate::Set(vec![named("a"), named("b")]));
        assert_eq!(ops(&updates), [(PodOperation::Add, vec!["a".to_owned()])]);
        let events: Vec<_> =
            sink.events.lock().drain(..).map(|e| (e.object.uid, e.reason, e.message)).collect();
        let message =
            r#"Error validating pod same_new(b) from http due to duplicate pod name "same", ignoring"#;
        assert_eq!(events, [(Some("b".to_owned()), "FailedValidation".into(), message.to_owned())]);
        let updates = merger.merge(SourceUpdate::Set(vec![named("b")]));
        let expected =
            [(PodOperation::Remove, vec!["a".to_owned()]), (PodOperation::Add, vec!["b".to_owned()])];
        assert_eq!(ops(&updates), expected);
    }
}
