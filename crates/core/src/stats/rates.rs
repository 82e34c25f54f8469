//! From processor time that only grows to how fast it does.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Rates are taken over at least this time. Who asks more often gets the last one.
const MIN_WINDOW: Duration = Duration::from_secs(1);

/// The last reading of each container (upstream: `cpuUsageCache` of the CRI provider).
#[derive(Default)]
pub(super) struct UsageRates(Mutex<HashMap<String, Reading>>);

struct Reading {
    at: Timestamp,
    nanos: u64,
    rate: Option<u64>,
}

impl UsageRates {
    /// Takes a reading in. Answers the rate, in billionths of a processor; none before there were two readings.
    pub(super) fn note(&self, id: &str, at: Timestamp, nanos: u64) -> Option<u64> {
        let mut readings = self.0.lock();
        let Some(last) = readings.get_mut(id) else {
            readings.insert(id.to_owned(), Reading { at, nanos, rate: None });
            return None;
        };
        let elapsed = Duration::try_from(at.duration_since(last.at)).unwrap_or_default();
        if elapsed < MIN_WINDOW {
            return last.rate;
        }
        let used = u128::from(nanos.saturating_sub(last.nanos));
        let rate = u64::try_from(used * 1_000_000_000 / elapsed.as_nanos()).ok();
        *last = Reading { at, nanos, rate };
        rate
    }

    /// Forgets containers that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|id, _| is_there(id));
    }
}
