//! When pods are evicted (upstream: the checks of `ParseThresholdConfig`, which end the start of a kubelet).

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::eviction::{EvictionConfig, EvictionStatements, parse_threshold_config};

use super::duration;
use super::kubelet_configuration::KubeletConfiguration;
use super::values::Values;

const PODS: &str = "pods";

/// From a configuration that is known to be valid. Where thresholds are not kept from pods (`ignore_in_allocatable`), what is for
/// pods has none.
pub fn known(config: &KubeletConfiguration, ignore_in_allocatable: bool) -> EvictionConfig {
    let statements = EvictionStatements {
        hard: config.eviction_hard.clone(),
        soft: config.eviction_soft.clone(),
        soft_grace_period: grace_periods(&config.eviction_soft_grace_period).unwrap_or_default(),
        minimum_reclaim: config.eviction_minimum_reclaim.clone(),
    };
    let enforces_pods =
        !ignore_in_allocatable && config.enforce_node_allocatable.iter().any(|name| name == PODS);
    EvictionConfig {
        thresholds: parse_threshold_config(&statements, enforces_pods).unwrap_or_default(),
        pressure_transition_period: config.eviction_pressure_transition_period,
        max_pod_grace_period: config.eviction_max_pod_grace_period.into(),
        local_storage: config.local_storage_capacity_isolation,
    }
}

/// Adds what is wrong with the values to the problems.
pub(super) fn validate(values: &Values, problems: &mut Vec<String>) {
    let soft_grace_period = match grace_periods(&values.texts("evictionSoftGracePeriod")) {
        Ok(periods) => periods,
        Err(problem) => return problems.push(problem),
    };
    let statements = EvictionStatements {
        hard: values.texts("evictionHard"),
        soft: values.texts("evictionSoft"),
        soft_grace_period,
        minimum_reclaim: values.texts("evictionMinimumReclaim"),
    };
    problems.extend(parse_threshold_config(&statements, false).err().map(|error| error.to_string()));
    let longest = values.int("evictionMaxPodGracePeriod");
    if longest < 0 {
        problems.push(format!(
            "evictionMaxPodGracePeriod (--eviction-max-pod-grace-period) {longest} must not be a negative number"
        ));
    }
}

fn grace_periods(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Duration>, String> {
    let parse = |(signal, text): (&String, &String)| {
        let nanos =
            duration::parse(text).map_err(|error| format!("evictionSoftGracePeriod {signal}: {error}"))?;
        let period = u64::try_from(nanos).map(Duration::from_nanos);
        let period = period.map_err(|_| {
            format!("invalid eviction grace period specified: {text}, must be a positive value")
        })?;
        Ok((signal.clone(), period))
    };
    texts.iter().map(parse).collect()
}
