//! What probes have found, by container id (upstream: `prober/results`).

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;

use super::ProbeType;
use crate::pod::PodUid;

/// What a probe says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Nothing yet.
    Unknown,
    /// It is well.
    Success,
    /// It is not well.
    Failure,
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Success => "Success",
            Self::Failure => "Failure",
        })
    }
}

/// A result that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which probe's.
    pub probe_type: ProbeType,
    /// The pod.
    pub pod_uid: PodUid,
    /// The container, as the API shows its id.
    pub container_id: String,
    /// What it is now.
    pub result: ProbeResult,
}

/// The results of probes of one type (`results.Manager`). Keys are container ids as the API shows them.
#[derive(Debug, Default)]
pub struct Results {
    cache: Mutex<HashMap<String, ProbeResult>>,
}

impl Results {
    /// The result for a container; none if it is not probed.
    pub fn get(&self, container_id: &str) -> Option<ProbeResult> {
        self.cache.lock().get(container_id).copied()
    }

    /// Sets a result; says whether that changed it.
    pub fn set(&self, container_id: &str, result: ProbeResult) -> bool {
        let mut cache = self.cache.lock();
        match cache.get_mut(container_id) {
            Some(old) => std::mem::replace(old, result) != result,
            None => {
                cache.insert(container_id.to_owned(), result);
                true
            }
        }
    }

    /// The containers that there are results of.
    #[cfg(feature = "simulation")]
    pub(crate) fn container_ids(&self) -> Vec<String> {
        self.cache.lock().keys().cloned().collect()
    }

    /// Forgets a container.
    pub fn remove(&self, container_id: &str) {
        self.cache.lock().remove(container_id);
    }
}

/// The results of all types.
#[derive(Debug, Default)]
pub struct ProbeResults {
    /// Whether containers are alive.
    pub liveness: Results,
    /// Whether containers are ready.
    pub readiness: Results,
    /// Whether containers have started.
    pub startup: Results,
}

impl ProbeResults {
    /// The results of one type.
    pub fn of(&self, probe_type: ProbeType) -> &Results {
        match probe_type {
            ProbeType::Liveness => &self.liveness,
            ProbeType::Readiness => &self.readiness,
            ProbeType::Startup => &self.startup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told() {
        let results = Results::default();
        assert_eq!(results.get("a"), None);
        assert!(results.set("a", ProbeResult::Failure));
        assert!(!results.set("a", ProbeResult::Failure));
        assert!(results.set("a", ProbeResult::Success));
        assert_eq!(results.get("a"), Some(ProbeResult::Success));
        results.remove("a");
        assert_eq!(results.get("a"), None);
    }
}
