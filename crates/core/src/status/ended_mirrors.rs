//! Which mirror pods show the end of an earlier life.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::pod::PodUid;

/// The UID of a static pod is made from its manifest: one that comes back has the UID, and maybe still the mirror, of the
/// life that ended before. What that mirror shows says nothing of the new life.
#[derive(Debug, Default)]
pub(super) struct EndedMirrors(Mutex<HashSet<PodUid>>);

impl EndedMirrors {
    /// The life that this mirror shows is over and forgotten.
    pub(super) fn insert(&self, mirror: PodUid) {
        self.0.lock().insert(mirror);
    }

    /// Whether this mirror shows a life that is over.
    pub(super) fn contains(&self, mirror: &PodUid) -> bool {
        self.0.lock().contains(mirror)
    }

    /// Forgets all mirrors but those that are there.
    pub(super) fn retain(&self, is_there: impl Fn(&PodUid) -> bool) {
        self.0.lock().retain(is_there);
    }
}
