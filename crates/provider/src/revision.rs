//! The order in which a provider's state changed.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A point in the history of one provider. Revisions of one provider are totally ordered; revisions of two
/// providers have nothing to do with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Grows each time the provider starts anew (the process, or the connection to it).
    pub generation: u64,
    /// Grows with every change within a generation.
    pub seq: u64,
}

/// Hands out the revisions of one provider.
#[derive(Debug)]
pub struct RevisionCounter {
    generation: u64,
    seq: AtomicU64,
}

impl RevisionCounter {
    /// Starts a generation. `generation` has to be larger than that of any earlier counter of this provider.
    pub fn new(generation: u64) -> Self {
        Self { generation, seq: AtomicU64::new(0) }
    }

    /// A generation made from the clock: nanoseconds since 1970, which a restart on the same machine exceeds.
    pub fn from_clock() -> Self {
        Self::new(u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0))
    }

    /// The revision of a change that happens now.
    pub fn next(&self) -> Revision {
        Revision { generation: self.generation, seq: self.seq.fetch_add(1, Ordering::SeqCst) + 1 }
    }

    /// The revision of the newest change so far: what a list that starts now is at least as new as.
    pub fn current(&self) -> Revision {
        Revision { generation: self.generation, seq: self.seq.load(Ordering::SeqCst) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_is_newer_than_anything_before_it() {
        let old = RevisionCounter::new(1);
        for _ in 0..100 {
            old.next();
        }
        assert!(RevisionCounter::new(2).current() > old.current());
    }
}
