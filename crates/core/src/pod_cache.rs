//! What the providers have of every pod, merged by revision.
//!
//! Three streams write here: answers to calls, events, and lists. They overtake each other, so every item keeps the
//! revision it was written with and older news about it is ignored. Nothing ever waits for a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_provider::{ContainerStatus, Event, Revision, SandboxStatus, Snapshot};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::kuberuntime::{RuntimeContainer, RuntimePod, RuntimeSandbox};
use crate::pod::PodUid;

/// A provider's name, as in [`coracle_provider::Provider::name`].
pub type ProviderName = &'static str;

/// The cache. Cheap calls under a short lock.
#[derive(Debug, Default)]
pub struct PodCache {
    inner: Mutex<Inner>,
    /// Counts changes, so that somebody can wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<PodUid, Entry>,
    /// Providers that have listed everything, and up to which revision: only then is an absent pod known to be absent, and
    /// late news about what was in no list known to be old.
    listed: BTreeMap<ProviderName, Revision>,
}

#[derive(Debug, Default)]
struct Entry {
    views: Vec<(ProviderName, View)>,
    /// A call about this pod ended without an answer: what is here may be behind until the next list of the pod.
    stale: bool,
}

/// One provider's part of a pod.
#[derive(Debug, Default)]
struct View {
    /// A change was asked of the provider and it is not known what came of it: there may be more than is known.
    expected: bool,
    sandboxes: BTreeMap<String, Item<SandboxStatus>>,
    containers: BTreeMap<String, Item<ContainerStatus>>,
}

/// An object, or the memory that it was removed: without that, late news would bring it back.
#[derive(Debug)]
enum Item<T> {
    Present(Arc<T>),
    Removed(Revision),
}

trait Revised {
    fn revision(&self) -> Revision;
}

impl Revised for SandboxStatus {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl Revised for ContainerStatus {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl<T: Revised> Item<T> {
    fn revision(&self) -> Revision {
        match self {
            Self::Present(item) => item.revision(),
            Self::Removed(revision) => *revision,
        }
    }
}

/// Takes news of an item in; says whether it is. An unknown item that has not changed since everything was `listed` is gone.
fn put<T: Revised>(
    items: &mut BTreeMap<String, Item<T>>,
    id: &str,
    new: Item<T>,
    listed: Option<Revision>,
) -> bool {
    match items.get_mut(id) {
        Some(old) if old.revision() >= new.revision() => false,
        Some(old) => {
            *old = new;
            true
        }
        None if listed.is_some_and(|listed| new.revision() <= listed) => false,
        None => {
            let news = matches!(new, Item::Present(_));
            items.insert(id.to_owned(), new);
            news
        }
    }
}

/// Takes the word of a list of this revision: what it does not have is gone.
fn reconcile<T: Revised>(
    items: &mut BTreeMap<String, Item<T>>,
    present: Vec<(String, Arc<T>)>,
    revision: Revision,
    listed: Option<Revision>,
) -> bool {
    let mut changed = false;
    let ids: Vec<String> = present.iter().map(|(id, _)| id.clone()).collect();
    for (id, item) in present {
        changed |= put(items, &id, Item::Present(item), listed);
    }
    for (_, item) in items.iter_mut().filter(|(id, item)| !ids.contains(*id) && item.revision() <= revision) {
        changed |= matches!(item, Item::Present(_));
        *item = Item::Removed(revision);
    }
    changed
}

/// Forgets removals that a list of everything makes known for good.
fn forget_removed<T>(items: &mut BTreeMap<String, Item<T>>, listed: Revision) {
    items.retain(|_, item| !matches!(item, Item::Removed(revision) if *revision <= listed));
}

impl Entry {
    fn view(&mut self, provider: ProviderName) -> &mut View {
        if let Some(i) = self.views.iter().position(|(name, _)| *name == provider) {
            return &mut self.views[i].1;
        }
        self.views.push((provider, View::default()));
        let last = self.views.len() - 1;
        &mut self.views[last].1
    }

    fn is_empty(&self) -> bool {
        !self.stale && self.views.iter().all(|(_, v)| v.sandboxes.is_empty() && v.containers.is_empty())
    }

    fn to_runtime_pod(&self, uid: &PodUid) -> RuntimePod {
        let mut pod = RuntimePod::empty(uid.clone());
        for (provider, view) in &self.views {
            pod.sandboxes.extend(present(&view.sandboxes).map(|status| RuntimeSandbox { provider, status }));
            pod.containers
                .extend(present(&view.containers).map(|status| RuntimeContainer { provider, status }));
        }
        pod.sort();
        pod
    }
}

fn present<T>(items: &BTreeMap<String, Item<T>>) -> impl Iterator<Item = Arc<T>> {
    items.values().filter_map(|item| match item {
        Item::Present(item) => Some(item.clone()),
        Item::Removed(_) => None,
    })
}

impl PodCache {
    /// What is known of a pod. A pod that nobody has heard of is empty.
    pub fn get(&self, uid: &str) -> RuntimePod {
        let inner = self.inner.lock();
        match inner.pods.get_key_value(uid) {
            Some((uid, entry)) => entry.to_runtime_pod(uid),
            None => RuntimePod::empty(uid.into()),
        }
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<RuntimePod> {
        let inner = self.inner.lock();
        inner.pods.iter().map(|(uid, entry)| entry.to_runtime_pod(uid)).collect()
    }

    /// The UIDs of pods of which something is there.
    pub fn uids(&self) -> Vec<PodUid> {
        self.inner.lock().pods.iter().filter(|(_, e)| !e.is_empty()).map(|(uid, _)| uid.clone()).collect()
    }

    /// Whether a provider has listed at least once.
    pub fn is_synced(&self, provider: ProviderName) -> bool {
        self.inner.lock().listed.contains_key(provider)
    }

    /// Whether this provider has, had, or may have anything of this pod.
    pub fn knows(&self, provider: ProviderName, uid: &str) -> bool {
        let inner = self.inner.lock();
        let entry = inner.pods.get(uid);
        entry.is_some_and(|e| {
            e.views.iter().any(|(name, v)| {
                *name == provider && (v.expected || !(v.sandboxes.is_empty() && v.containers.is_empty()))
            })
        })
    }

    /// Changes of anything, for those who wait for something to happen.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Writes the state of a sandbox; says whether that was news.
    pub fn set_sandbox(&self, provider: ProviderName, status: Arc<SandboxStatus>) -> bool {
        let uid = status.pod.uid.clone();
        self.write(&uid, provider, |view, listed| {
            let id = status.id.clone();
            put(&mut view.sandboxes, &id, Item::Present(status), listed)
        })
    }

    /// Writes the state of a container; says whether that was news.
    pub fn set_container(&self, provider: ProviderName, status: Arc<ContainerStatus>) -> bool {
        let uid = status.pod.uid.clone();
        self.write(&uid, provider, |view, listed| {
            let id = status.id.clone();
            put(&mut view.containers, &id, Item::Present(status), listed)
        })
    }

    /// Forgets a sandbox that was removed.
    pub fn remove_sandbox(&self, provider: ProviderName, uid: &str, id: &str, revision: Revision) -> bool {
        let gone = Item::Removed(revision);
        self.write(uid, provider, |view, listed| put(&mut view.sandboxes, id, gone, listed))
    }

    /// Forgets a container that was removed.
    pub fn remove_container(&self, provider: ProviderName, uid: &str, id: &str, revision: Revision) -> bool {
        let gone = Item::Removed(revision);
        self.write(uid, provider, |view, listed| put(&mut view.containers, id, gone, listed))
    }

    /// Takes an event in; answers which pod it changed, if any. `Lagged` and `StatusChanged` concern no pod.
    pub fn apply(&self, provider: ProviderName, event: &Event) -> Option<PodUid> {
        let (uid, changed) = match event {
            Event::Sandbox(status) => (&status.pod.uid, self.set_sandbox(provider, status.clone())),
            Event::Container(status) => (&status.pod.uid, self.set_container(provider, status.clone())),
            Event::SandboxRemoved { pod, id, revision } => {
                (&pod.uid, self.remove_sandbox(provider, &pod.uid, id, *revision))
            }
            Event::ContainerRemoved { pod, id, revision } => {
                (&pod.uid, self.remove_container(provider, &pod.uid, id, *revision))
            }
            Event::Lagged | Event::StatusChanged => return None,
        };
        changed.then(|| uid.as_str().into())
    }

    /// Takes a provider's list of everything in; answers which pods it changed.
    pub fn replace_all(&self, provider: ProviderName, snapshot: Snapshot) -> Vec<PodUid> {
        let mut by_pod: BTreeMap<PodUid, Snapshot> = BTreeMap::new();
        for sandbox in snapshot.sandboxes {
            by_pod.entry(sandbox.pod.uid.as_str().into()).or_default().sandboxes.push(sandbox);
        }
        for container in snapshot.containers {
            by_pod.entry(container.pod.uid.as_str().into()).or_default().containers.push(container);
        }
        let mut inner = self.inner.lock();
        for uid in inner.pods.keys() {
            by_pod.entry(uid.clone()).or_default();
        }
        let mut changed = Vec::new();
        for (uid, mut of_pod) in by_pod {
            of_pod.revision = snapshot.revision;
            if inner.reconcile_pod(provider, &uid, of_pod) {
                changed.push(uid);
            }
        }
        inner.listed_everything(provider, snapshot.revision);
        drop(inner);
        self.note(!changed.is_empty());
        changed
    }

    /// Takes a provider's list of one pod in; says whether that was news.
    pub fn replace_pod(&self, provider: ProviderName, uid: &PodUid, snapshot: Snapshot) -> bool {
        let mut inner = self.inner.lock();
        inner.pods.entry(uid.clone()).or_default().view(provider).expected = false;
        let changed = inner.reconcile_pod(provider, uid, snapshot);
        drop(inner);
        self.note(changed)
    }

    /// Notes that a call about this pod ended without an answer: the provider may have more of it than is known.
    pub fn mark_stale(&self, provider: ProviderName, uid: &PodUid) {
        let mut inner = self.inner.lock();
        let entry = inner.pods.entry(uid.clone()).or_default();
        entry.stale = true;
        entry.view(provider).expected = true;
    }

    /// Notes that the pod has to be listed before anything is decided about it.
    pub fn distrust(&self, uid: &PodUid) {
        self.inner.lock().pods.entry(uid.clone()).or_default().stale = true;
    }

    /// Whether the pod has to be listed before anything is decided about it.
    pub fn is_stale(&self, uid: &str) -> bool {
        self.inner.lock().pods.get(uid).is_some_and(|e| e.stale)
    }

    /// All providers of the pod have been listed since it was marked.
    pub fn clear_stale(&self, uid: &str) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.pods.get_mut(uid) {
            entry.stale = false;
            if entry.is_empty() {
                inner.pods.remove(uid);
            }
        }
    }

    fn write(
        &self,
        uid: &str,
        provider: ProviderName,
        change: impl FnOnce(&mut View, Option<Revision>) -> bool,
    ) -> bool {
        let mut inner = self.inner.lock();
        let listed = inner.listed.get(provider).copied();
        let entry = inner.pods.entry(uid.into()).or_default();
        let changed = change(entry.view(provider), listed);
        if entry.is_empty() {
            inner.pods.remove(uid);
        }
        drop(inner);
        self.note(changed)
    }

    fn note(&self, changed: bool) -> bool {
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        changed
    }
}

impl Inner {
    fn reconcile_pod(&mut self, provider: ProviderName, uid: &PodUid, snapshot: Snapshot) -> bool {
        let listed = self.listed.get(provider).copied();
        let view = self.pods.entry(uid.clone()).or_default().view(provider);
        let sandboxes = snapshot.sandboxes.into_iter().map(|s| (s.id.clone(), s)).collect();
        let containers = snapshot.containers.into_iter().map(|c| (c.id.clone(), c)).collect();
        let mut changed = reconcile(&mut view.sandboxes, sandboxes, snapshot.revision, listed);
        changed |= reconcile(&mut view.containers, containers, snapshot.revision, listed);
        changed
    }

    /// All pods have been reconciled with a list of everything.
    fn listed_everything(&mut self, provider: ProviderName, revision: Revision) {
        let listed = self.listed.entry(provider).or_default();
        *listed = revision.max(*listed);
        let listed = *listed;
        self.pods.retain(|_, entry| {
            let view = entry.view(provider);
            forget_removed(&mut view.sandboxes, listed);
            forget_removed(&mut view.containers, listed);
            !entry.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use coracle_provider::ContainerState;

    use super::*;
    use crate::fakes::container_status;

    const P: ProviderName = "p";

    fn rev(seq: u64) -> Revision {
        Revision { generation: 1, seq }
    }

    fn container(id: &str, seq: u64, state: ContainerState) -> Arc<ContainerStatus> {
        let status = container_status("u", "c", 0);
        Arc::new(ContainerStatus { id: id.into(), state, revision: rev(seq), ..status })
    }

    fn state(cache: &PodCache) -> Option<ContainerState> {
        cache.get("u").containers.first().map(|c| c.state)
    }

    #[test]
    fn an_answer_that_an_event_has_overtaken_changes_nothing() {
        let cache = PodCache::default();
        assert!(cache.set_container(P, container("a", 2, ContainerState::Exited)));
        assert!(!cache.set_container(P, container("a", 1, ContainerState::Running)));
        assert_eq!(state(&cache), Some(ContainerState::Exited));
    }

    #[test]
    fn late_news_does_not_bring_a_removed_container_back() {
        let cache = PodCache::default();
        cache.set_container(P, container("a", 1, ContainerState::Running));
        assert!(cache.remove_container(P, "u", "a", rev(3)));
        assert!(!cache.set_container(P, container("a", 2, ContainerState::Exited)));
        assert_eq!(state(&cache), None);
    }

    #[test]
    fn late_news_does_not_bring_back_what_a_list_no_longer_has() {
        let listed = || Snapshot { revision: rev(4), ..Snapshot::default() };
        let late = || container("a", 2, ContainerState::Running);
        for knew_of_it in [true, false] {
            let cache = PodCache::default();
            if knew_of_it {
                cache.set_container(P, container("a", 1, ContainerState::Running));
            }
            cache.replace_all(P, listed());
            assert!(!cache.set_container(P, late()), "known before: {knew_of_it}");
            assert!(cache.inner.lock().pods.is_empty());
            assert!(cache.set_container("q", late()), "lists of others say nothing");
            assert!(cache.set_container(P, container("b", 5, ContainerState::Running)));
        }
        let cache = PodCache::default();
        cache.set_container(P, container("a", 1, ContainerState::Running));
        cache.replace_pod(P, &"u".into(), listed());
        assert!(!cache.set_container(P, late()));
        assert_eq!(state(&cache), None);
    }

    #[test]
    fn a_list_removes_what_it_should_have_seen_and_keeps_what_is_newer() {
        let cache = PodCache::default();
        cache.set_container(P, container("old", 1, ContainerState::Running));
        cache.set_container(P, container("new", 5, ContainerState::Running));
        let changed = cache.replace_all(P, Snapshot { revision: rev(4), ..Snapshot::default() });
        assert_eq!(changed, [PodUid::from("u")]);
        assert_eq!(cache.get("u").containers.len(), 1);
        assert_eq!(cache.get("u").containers[0].id, "new");
        assert!(cache.is_synced(P));
    }

    #[test]
    fn a_list_of_one_provider_says_nothing_about_another() {
        let cache = PodCache::default();
        cache.set_container("q", container("a", 1, ContainerState::Running));
        cache.replace_all(P, Snapshot { revision: rev(9), ..Snapshot::default() });
        assert_eq!(state(&cache), Some(ContainerState::Running));
    }

    #[test]
    fn nothing_is_kept_of_a_pod_that_is_gone() {
        let cache = PodCache::default();
        cache.set_container(P, container("a", 1, ContainerState::Exited));
        cache.remove_container(P, "u", "a", rev(2));
        cache.replace_all(P, Snapshot { revision: rev(2), ..Snapshot::default() });
        assert!(cache.inner.lock().pods.is_empty());
    }
}
