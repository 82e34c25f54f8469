//! What has been observed so far, and what follows from it (upstream: `managerImpl` in `eviction_manager.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::observations::{
    Observations, first_observed_at, last_observed_at, merge, met_grace_period, observed_since,
    thresholds_met,
};
use super::signal::{NodeCondition, Resource};
use super::threshold::Threshold;
use crate::admission::{Rejection, tolerates};
use crate::pod::PodExt;
use crate::preemption::is_critical_pod;
use crate::qos::pod_qos;
use crate::recorder::reason;

/// Seconds that a pod has to end if it has to go at once (`immediateEvictionGracePeriodSeconds`).
const IMMEDIATE: i64 = 1;
/// What the control plane taints a node with that has memory pressure.
const MEMORY_PRESSURE_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// When to evict pods.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionConfig {
    /// What may run out, and how far.
    pub thresholds: Vec<Threshold>,
    /// `evictionPressureTransitionPeriod`: how long the Node says so after it was seen last.
    pub pressure_transition_period: Duration,
    /// `evictionMaxPodGracePeriod`: seconds that a pod has to end at most for a soft threshold.
    pub max_pod_grace_period: i64,
    /// `localStorageCapacityIsolation`: whether pods are held to their limits of local storage.
    pub local_storage: bool,
}

impl Default for EvictionConfig {
    /// Nothing may run out; limits of local storage hold.
    fn default() -> Self {
        Self {
            thresholds: Vec::new(),
            pressure_transition_period: Duration::from_secs(300),
            max_pod_grace_period: 0,
            local_storage: true,
        }
    }
}

/// What the Node says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory runs out.
    pub memory: bool,
    /// Disk space runs out.
    pub disk: bool,
    /// Process ids run out.
    pub pid: bool,
}

/// Remembers what was observed.
pub struct EvictionManager {
    config: EvictionConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    conditions: Vec<NodeCondition>,
    conditions_observed_at: BTreeMap<NodeCondition, Instant>,
    thresholds_observed_at: Vec<(Threshold, Instant)>,
    /// Those for which something is being done until enough is reclaimed.
    thresholds_met: Vec<Threshold>,
}

impl EvictionManager {
    /// Nothing was observed yet.
    pub fn new(config: EvictionConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// When to evict pods.
    pub fn config(&self) -> &EvictionConfig {
        &self.config
    }

    /// Takes in what was observed, and answers the thresholds for which something has to be done now, memory first (the first
    /// half of `synchronize`). Upstream also asks whether figures are new; here they always are.
    pub fn observe(&self, observations: &Observations, now: Instant) -> Vec<Threshold> {
        let mut state = self.state.lock();
        let met = thresholds_met(&self.config.thresholds, observations, false);
        let unresolved = thresholds_met(&state.thresholds_met, observations, true);
        let thresholds = merge(met, unresolved);
        state.thresholds_observed_at = first_observed_at(&thresholds, &state.thresholds_observed_at, now);
        let before = std::mem::take(&mut state.conditions_observed_at);
        state.conditions_observed_at = last_observed_at(&thresholds, before, now);
        let period = self.config.pressure_transition_period;
        state.conditions = observed_since(&state.conditions_observed_at, period, now);
        let mut thresholds = met_grace_period(&state.thresholds_observed_at, now);
        state.thresholds_met.clone_from(&thresholds);
        thresholds.sort_by_key(|threshold| threshold.signal.resource() != Resource::Memory);
        thresholds
    }

    /// Whether all is well with what is observed, and enough reclaimed.
    pub fn is_relieved(&self, observations: &Observations) -> bool {
        thresholds_met(&self.config.thresholds, observations, true).is_empty()
    }

    /// What the Node is to say.
    pub fn pressure(&self) -> Pressure {
        let conditions = &self.state.lock().conditions;
        Pressure {
            memory: conditions.contains(&NodeCondition::MemoryPressure),
            disk: conditions.contains(&NodeCondition::DiskPressure),
            pid: conditions.contains(&NodeCondition::PIDPressure),
        }
    }

    /// Whether a pod may come while something runs out (`Admit`): critical ones may, and while it is only memory, those that
    /// asked for some.
    pub fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let conditions = self.state.lock().conditions.clone();
        if conditions.is_empty() || is_critical_pod(pod) {
            return Ok(());
        }
        if conditions == [NodeCondition::MemoryPressure]
            && (pod_qos(pod) != "BestEffort" || tolerates_memory_pressure(pod))
        {
            return Ok(());
        }
        let names: Vec<String> = conditions.iter().map(ToString::to_string).collect();
        let message = format!("The node had condition: [{}]. ", names.join(" "));
        Err(Rejection { reason: reason::EVICTED.into(), message })
    }
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let taint =
        Taint { key: MEMORY_PRESSURE_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    pod.pod_spec().tolerations.iter().flatten().any(|toleration| tolerates(toleration, &taint))
}

/// Seconds that a pod has to end which goes for a threshold.
pub fn grace_period(threshold: &Threshold, pod: &Pod, config: &EvictionConfig) -> i64 {
    if threshold.is_hard() {
        return IMMEDIATE;
    }
    let own = pod.pod_spec().termination_grace_period_seconds;
    own.map_or(config.max_pod_grace_period, |own| own.min(config.max_pod_grace_period))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::eviction::{Observation, Signal, ThresholdValue};
    use crate::quantity::Quantity;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    fn threshold(signal: Signal, text: &str) -> Threshold {
        let value = ThresholdValue::Quantity(quantity(text));
        Threshold { signal, value, grace_period: Duration::ZERO, min_reclaim: None }
    }

    fn observed(list: &[(Signal, &str)]) -> Observations {
        let observation = |text| Observation { available: quantity(text), capacity: quantity("10Gi") };
        list.iter().map(|(signal, text)| (*signal, observation(text))).collect()
    }

    fn manager(thresholds: Vec<Threshold>) -> EvictionManager {
        EvictionManager::new(EvictionConfig { thresholds, ..EvictionConfig::default() })
    }

    fn pod(class: &str, more: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"spec": spec, "status": {"qosClass": class}})).unwrap()
    }

    /// `TestMemoryPressure`, `TestMinReclaim`.
    #[tokio::test(start_paused = true)]
    async fn pressure_comes_goes_and_is_remembered() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let hard = Threshold {
            min_reclaim: Some(ThresholdValue::Quantity(quantity("500Mi"))),
            ..threshold(Signal::MemoryAvailable, "1Gi")
        };
        let soft = Threshold { grace_period: 2 * minute, ..threshold(Signal::MemoryAvailable, "2Gi") };
        let manager = manager(vec![hard, soft]);
        let memory = |text| observed(&[(Signal::MemoryAvailable, text)]);
        assert_eq!(manager.observe(&memory("3Gi"), start), []);
        assert!(!manager.pressure().memory);
        // Below the soft threshold the Node says so at once, and pods go later.
        assert_eq!(manager.observe(&memory("1500Mi"), start + minute), []);
        assert!(manager.pressure().memory);
        assert_eq!(manager.observe(&memory("1500Mi"), start + 3 * minute), [soft]);
        // Below the hard one, they go at once, and until there is more than that again.
        assert_eq!(manager.observe(&memory("500Mi"), start + 3 * minute), [hard, soft]);
        assert_eq!(manager.observe(&memory("1200Mi"), start + 3 * minute), [soft, hard]);
        assert!(!manager.is_relieved(&memory("1400Mi")) && manager.is_relieved(&memory("2Gi")));
        assert_eq!(manager.observe(&memory("2Gi"), start + 4 * minute), []);
        assert!(manager.pressure().memory, "it was a minute ago");
        manager.observe(&memory("2Gi"), start + 8 * minute + Duration::from_secs(1));
        assert_eq!(manager.pressure(), Pressure::default());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_comes_first() {
        let disk = threshold(Signal::NodeFsAvailable, "1Gi");
        let memory = threshold(Signal::AllocatableMemoryAvailable, "1Gi");
        let manager = manager(vec![disk, memory]);
        let all = observed(&[(Signal::NodeFsAvailable, "1"), (Signal::AllocatableMemoryAvailable, "1")]);
        assert_eq!(manager.observe(&all, Instant::now()), [memory, disk]);
        assert_eq!(manager.pressure(), Pressure { memory: true, disk: true, pid: false });
    }

    /// `TestAdmitUnderNodeConditions`.
    #[tokio::test(start_paused = true)]
    async fn who_may_come_while_something_runs_out() {
        let critical = json!({"priority": 2_000_000_000});
        let tolerant = json!({"tolerations": [{"key": MEMORY_PRESSURE_TAINT, "operator": "Exists"}]});
        let all = [
            pod("BestEffort", json!({})),
            pod("BestEffort", tolerant),
            pod("Burstable", json!({})),
            pod("Guaranteed", json!({})),
            pod("BestEffort", critical),
        ];
        // Memory, disk, processes; who of them may come.
        let cases = [
            ([false, false, false], [true; 5]),
            ([true, false, false], [false, true, true, true, true]),
            ([false, true, false], [false, false, false, false, true]),
            ([false, false, true], [false, false, false, false, true]),
            ([true, true, false], [false, false, false, false, true]),
        ];
        let signals = [Signal::MemoryAvailable, Signal::NodeFsInodesFree, Signal::PidAvailable];
        for (low, expected) in cases {
            let manager = manager(signals.map(|signal| threshold(signal, "1k")).into());
            let list: Vec<_> = signals
                .iter()
                .zip(low)
                .map(|(signal, low)| (*signal, if low { "1" } else { "2k" }))
                .collect();
            manager.observe(&observed(&list), Instant::now());
            assert_eq!(all.each_ref().map(|pod| manager.admit(pod).is_ok()), expected, "{low:?}");
        }
        let manager =
            manager(vec![threshold(Signal::MemoryAvailable, "1k"), threshold(Signal::PidAvailable, "1k")]);
        manager.observe(&observed(&[(signals[0], "1"), (signals[2], "1")]), Instant::now());
        let rejection = manager.admit(&all[2]).unwrap_err();
        let message = "The node had condition: [MemoryPressure PIDPressure]. ";
        assert_eq!((&*rejection.reason, rejection.message.as_str()), ("Evicted", message));
    }

    #[test]
    fn who_goes_for_a_soft_threshold_has_time() {
        let config = EvictionConfig { max_pod_grace_period: 30, ..EvictionConfig::default() };
        let hard = threshold(Signal::MemoryAvailable, "1Gi");
        let soft = Threshold { grace_period: Duration::from_secs(1), ..hard };
        let with = |seconds: i64| pod("Burstable", json!({"terminationGracePeriodSeconds": seconds}));
        assert_eq!(grace_period(&hard, &with(60), &config), 1);
        assert_eq!(grace_period(&soft, &with(60), &config), 30);
        assert_eq!(grace_period(&soft, &with(10), &config), 10);
        assert_eq!(grace_period(&soft, &pod("Burstable", json!({})), &config), 30);
    }
}
