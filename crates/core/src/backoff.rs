//! Waiting longer each time something fails.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::clock;

/// A delay that doubles up to a maximum.
#[derive(Clone, Debug)]
pub struct Delay {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Delay {
    /// Starts at `initial`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The delay to wait now; the next one is twice as long.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay
    }

    /// It worked: begin anew.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

/// `duration` plus up to `factor` of itself (`wait.Jitter`).
pub fn jitter(duration: Duration, factor: f64) -> Duration {
    duration.mul_f64(1.0 + fastrand::f64() * factor)
}

/// Back-off for many keys, as client-go's `flowcontrol.Backoff`: doubles from `initial` to `max`, and an entry that
/// has been quiet for `expiry` begins anew.
#[derive(Debug)]
pub struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    expiry: SignedDuration,
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    backoff: SignedDuration,
    last_update: Timestamp,
}

impl Backoff {
    /// Back-off between these two.
    pub fn new(initial: Duration, max: Duration, expiry: Duration) -> Self {
        let signed = |d| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        Self { initial: signed(initial), max: signed(max), expiry: signed(expiry), entries: Mutex::default() }
    }

    /// Records a failure that was over at `event` (`Next`).
    pub fn next(&self, key: &str, event: Timestamp) {
        let mut entries = self.entries.lock();
        let now = clock::now();
        let backoff = match entries.get(key) {
            Some(entry) if !self.expired(event, entry) => (entry.backoff * 2).min(self.max),
            _ => self.initial,
        };
        entries.insert(key.to_owned(), Entry { backoff, last_update: now });
    }

    /// Until when to wait after a failure at `event`, if that is still in the future (`IsInBackOffSince`).
    pub fn waits_until(&self, key: &str, event: Timestamp) -> Option<Timestamp> {
        let entries = self.entries.lock();
        let entry = entries.get(key).filter(|e| !self.expired(event, e))?;
        let until = event.checked_add(entry.backoff).ok()?;
        (clock::now() < until).then_some(until)
    }

    /// Until when to wait since the last failure was recorded, if that is still in the future
    /// (`IsInBackOffSinceUpdate`).
    pub fn waits_until_since_update(&self, key: &str) -> Option<Timestamp> {
        let entries = self.entries.lock();
        let entry = entries.get(key).filter(|e| !self.expired(clock::now(), e))?;
        let until = entry.last_update.checked_add(entry.backoff).ok()?;
        (clock::now() < until).then_some(until)
    }

    /// The current back-off of a key.
    pub fn get(&self, key: &str) -> SignedDuration {
        self.entries.lock().get(key).map(|e| e.backoff).unwrap_or(SignedDuration::ZERO)
    }

    /// The keys.
    #[cfg(feature = "simulation")]
    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.lock().keys().cloned().collect()
    }

    /// Forgets a key.
    pub fn reset(&self, key: &str) {
        self.entries.lock().remove(key);
    }

    /// Forgets the keys that begin with `prefix`.
    pub fn forget(&self, prefix: &str) {
        self.entries.lock().retain(|key, _| !key.starts_with(prefix));
    }

    /// Forgets what has been quiet for so long that it would begin anew.
    pub fn gc(&self) {
        let now = clock::now();
        self.entries.lock().retain(|_, e| !self.expired(now, e));
    }

    fn expired(&self, event: Timestamp, entry: &Entry) -> bool {
        event.duration_since(entry.last_update) > self.expiry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn doubles_up_to_the_maximum_and_begins_anew_after_the_expiry() {
        let backoff = Backoff::new(SECOND * 10, SECOND * 300, SECOND * 600);
        assert_eq!(backoff.waits_until("k", clock::now()), None);
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoff.next("k", clock::now());
            seen.push(backoff.get("k").as_secs());
            tokio::time::advance(SECOND * 301).await;
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        tokio::time::advance(SECOND * 600).await;
        backoff.next("k", clock::now());
        assert_eq!(backoff.get("k").as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_from_the_end_of_the_failure() {
        let backoff = Backoff::new(SECOND * 10, SECOND * 300, SECOND * 600);
        let failed_at = clock::now();
        backoff.next("k", failed_at);
        tokio::time::advance(SECOND * 9).await;
        assert!(backoff.waits_until("k", failed_at).is_some());
        tokio::time::advance(SECOND * 2).await;
        assert!(backoff.waits_until("k", failed_at).is_none());
    }
}
