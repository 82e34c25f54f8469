//! Wall-clock time that follows tokio's, so that tests with a paused clock see it move.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now. While tokio's clock is paused or advanced by a test, this is too.
pub fn now() -> Timestamp {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::now() {
        return now;
    }
    let tokio = tokio::time::Instant::now().into_std();
    let real = std::time::Instant::now();
    let ahead =
        SignedDuration::try_from(tokio.saturating_duration_since(real)).unwrap_or(SignedDuration::ZERO);
    let behind =
        SignedDuration::try_from(real.saturating_duration_since(tokio)).unwrap_or(SignedDuration::ZERO);
    let wall = Timestamp::now();
    wall.checked_add(ahead - behind).unwrap_or(wall)
}

/// Now, in the whole seconds that the API knows (`metav1.Time` in RFC 3339).
pub fn api_now() -> Time {
    api_time(now())
}

/// A time in whole seconds (`Rfc3339Copy`).
pub fn api_time(timestamp: Timestamp) -> Time {
    Time(Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp))
}

/// A wall clock that shows the same times at each run.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static START: Cell<Option<(Instant, Timestamp)>> = const { Cell::new(None) };
    }

    /// It is `timestamp` now, and from here on the wall clock of this thread is as far ahead as tokio's.
    pub fn start_at(timestamp: Timestamp) {
        START.set(Some((Instant::now(), timestamp)));
    }

    pub(crate) fn is_on() -> bool {
        START.get().is_some()
    }

    pub(super) fn now() -> Option<Timestamp> {
        let (start, timestamp) = START.get()?;
        timestamp.checked_add(SignedDuration::try_from(start.elapsed()).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_clock_follows_a_paused_clock() {
        let before = now();
        tokio::time::advance(std::time::Duration::from_secs(3600)).await;
        let off_by = now().duration_since(before) - SignedDuration::from_hours(1);
        assert!(off_by.abs() < SignedDuration::from_millis(10), "{off_by:?}");
    }
}
