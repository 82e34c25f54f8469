//! Pods whose admission waits for something.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::pod::PodUid;
use crate::work_queue::WorkQueue;

/// Pods whose admission takes a while, in the order in which they came.
#[derive(Default)]
pub(super) struct PendingAdmissions {
    pods: Arc<Mutex<Vec<Pending>>>,
    /// What they wait for. Dropping this ends it.
    tasks: Mutex<JoinSet<()>>,
}

/// One of them.
pub(super) struct Pending {
    pub(super) uid: PodUid,
    pub(super) state: State,
}

/// What it waits for, or what that came to.
pub(super) enum State {
    /// Its RuntimeClass is read, to know what its runtime has.
    ReadingClass,
    /// What its runtime runs, if that can be known.
    ClassRead(Option<ArtifactKind>),
    /// The labels of the Node did not match: it is read anew, they may have changed a moment ago.
    ReadingNode,
    /// The Node as it is.
    NodeRead(Option<Arc<Node>>),
    /// Pods are being stopped for this one.
    MakingRoom,
    /// There is room.
    RoomMade,
    /// Pods are being stopped for another one.
    AfterOthers,
    /// Pods that had a place before this agent started have not been heard of yet, and may still want it.
    AfterSources,
}

impl PendingAdmissions {
    /// Whether the pod is not to start yet.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.pods.lock().iter().any(|p| &*p.uid == uid)
    }

    /// Who waits.
    #[cfg(feature = "simulation")]
    pub(super) fn uids(&self) -> Vec<PodUid> {
        self.pods.lock().iter().map(|p| p.uid.clone()).collect()
    }

    /// Says whether the pod was there.
    pub(super) fn remove(&self, uid: &str) -> bool {
        let mut pods = self.pods.lock();
        let before = pods.len();
        pods.retain(|p| &*p.uid != uid);
        pods.len() < before
    }

    pub(super) fn add(&self, uid: PodUid, state: State) {
        self.pods.lock().push(Pending { uid, state });
    }

    /// Adds a pod that goes on in another state after this, which is told by the queue.
    pub(super) fn wait_for(
        &self,
        uid: PodUid,
        state: State,
        next: impl Future<Output = State> + Send + 'static,
        queue: Arc<WorkQueue>,
    ) {
        self.add(uid.clone(), state);
        let pods = self.pods.clone();
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let next = next.await;
            if let Some(pending) = pods.lock().iter_mut().find(|pending| pending.uid == uid) {
                pending.state = next;
            }
            queue.enqueue(uid, Duration::ZERO);
        });
    }

    pub(super) fn is_making_room(&self) -> bool {
        self.pods.lock().iter().any(|p| matches!(p.state, State::MakingRoom))
    }

    /// Whether the pod is to have what it asks for.
    pub(super) fn is_admitted(&self, uid: &str) -> bool {
        let pods = self.pods.lock();
        let found = pods.iter().find(|p| &*p.uid == uid);
        found.is_none_or(|p| matches!(p.state, State::MakingRoom | State::RoomMade))
    }

    /// All sources have told their pods.
    pub(super) fn sources_are_ready(&self) {
        for pending in self.pods.lock().iter_mut().filter(|p| matches!(p.state, State::AfterSources)) {
            pending.state = State::AfterOthers;
        }
    }

    /// Takes out the first that goes on.
    pub(super) fn next(&self) -> Option<Pending> {
        let mut pods = self.pods.lock();
        let blocked = pods.iter().any(|p| matches!(p.state, State::MakingRoom));
        let goes_on = |p: &Pending| match p.state {
            State::NodeRead(_) | State::RoomMade => true,
            State::AfterOthers | State::ClassRead(_) => !blocked,
            State::ReadingClass | State::ReadingNode | State::MakingRoom | State::AfterSources => false,
        };
        pods.iter().position(goes_on).map(|i| pods.remove(i))
    }
}
