//! Waiting between attempts.

use std::time::Duration;

use rand::Rng;

/// Doubling delays with jitter: the nth is drawn from the upper half of `min(first * 2^n, max)`, so that nodes that
/// lost the same apiserver do not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = (ceiling * 2).min(self.max);
        ceiling.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Starts over, because something worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for ceiling in [50, 100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next();
            let ceiling = Duration::from_millis(ceiling);
            assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} of {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(50));
    }
}
