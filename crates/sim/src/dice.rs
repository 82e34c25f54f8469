//! All chance of a run, from one seed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Shared by everything that has to choose. Within one thread the order of the choices is part of the run.
#[derive(Clone)]
pub(crate) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.0.lock().u32(0..1000) < per_mille
    }

    pub(crate) fn number(&self, range: Range<u32>) -> u32 {
        self.0.lock().u32(range)
    }

    pub(crate) fn millis(&self, range: Range<u32>) -> Duration {
        Duration::from_millis(u64::from(self.number(range)))
    }

    pub(crate) fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.0.lock().usize(0..choices.len())]
    }
}
