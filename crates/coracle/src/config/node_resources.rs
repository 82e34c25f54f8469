//! What is kept from pods, and what holds them to the rest (upstream: `parseResourceList` in `cmd/kubelet/app/server.go`,
//! and the checks of `enforceNodeAllocatable` in `ValidateKubeletConfiguration`).

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::cm::{CgroupName, Enforcement, ReservedResources};
use coracle_core::quantity::{Format, Quantity};
use serde_json::Value;

use super::values::Values;

const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

/// Parses `kubeReserved` or `systemReserved`. Processors are rounded to thousandths.
pub fn parse(list: &BTreeMap<String, String>) -> Result<ReservedResources, String> {
    let parse = |(name, text): (&String, &String)| {
        if !RESERVABLE.contains(&name.as_str()) {
            return Err(format!("cannot reserve {name:?} resource"));
        }
        let amount = Quantity::parse(text)
            .map_err(|error| format!("failed to parse quantity {text:?} for {name:?} resource: {error}"))?;
        if amount < Quantity::ZERO {
            return Err(format!("resource quantity for {name:?} cannot be negative: {text}"));
        }
        let is_cpu = name == "cpu";
        let amount =
            if is_cpu { Quantity::new_milli(amount.milli_value(), Format::DecimalSi) } else { amount };
        Ok((name.clone(), amount))
    };
    list.iter().map(parse).collect()
}

/// The same of a configuration that is known to be valid.
pub fn known(list: &BTreeMap<String, String>) -> ReservedResources {
    parse(list).unwrap_or_default()
}

/// Adds what is wrong with the values to the problems.
pub(super) fn validate(values: &Values, problems: &mut Vec<String>) {
    for (path, flag) in [("kubeReserved", "kube-reserved"), ("systemReserved", "system-reserved")] {
        if let Err(problem) = parse(&values.texts(path)) {
            problems.push(format!("{path} (--{flag}) value failed to parse: {problem}"));
        }
    }
    enforcement(values, problems);
    cgroups(values, problems);
}

fn cgroups(values: &Values, problems: &mut Vec<String>) {
    let driver = values.text("cgroupDriver").unwrap_or_default();
    if !matches!(driver, "cgroupfs" | "systemd") {
        problems.push(format!("cgroupDriver (--cgroup-driver) {driver:?} must be cgroupfs or systemd"));
    }
    let root = values.text("cgroupRoot").unwrap_or_default();
    let is_part = |part: &str| CgroupName::is_component(part) && !matches!(part, "." | "..");
    if !root.split('/').filter(|part| !part.is_empty()).all(is_part) {
        problems.push(format!("cgroupRoot (--cgroup-root) {root:?} must be a path without \"_\" and \"..\""));
    }
}

fn enforcement(values: &Values, problems: &mut Vec<String>) {
    const FIELD: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";
    let list = values.get("enforceNodeAllocatable").and_then(Value::as_array);
    let names: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
    for group in ["system-reserved", "kube-reserved"] {
        let compressible = format!("{group}-compressible");
        if names.contains(&group) && names.contains(&compressible.as_str()) {
            problems
                .push(format!("both {group:?} and {compressible:?} cannot be specified together in {FIELD}"));
        }
    }
    let is_set = |path: &str| values.text(path).is_some_and(|text| !text.is_empty());
    let mut seen = BTreeSet::new();
    for name in &names {
        if !seen.insert(name) {
            problems.push(format!("duplicated enforcements {name:?} in {FIELD}"));
            continue;
        }
        let needs = |path: &str, flag: &str, key: &str| {
            (!is_set(path)).then(|| {
                format!("{path} (--{flag}) must be specified when {key:?} or \"{key}-compressible\" included in {FIELD}")
            })
        };
        match Enforcement::parse(name) {
            Some(Enforcement::SystemReserved | Enforcement::SystemReservedCompressible) => {
                problems.extend(needs("systemReservedCgroup", "system-reserved-cgroup", "system-reserved"));
            }
            Some(Enforcement::KubeReserved | Enforcement::KubeReservedCompressible) => {
                problems.extend(needs("kubeReservedCgroup", "kube-reserved-cgroup", "kube-reserved"));
            }
            Some(Enforcement::Pods) => {}
            None if *name == "none" => {
                if names.len() > 1 {
                    problems.push(format!("{FIELD} may not contain additional enforcements when \"none\" is specified"));
                }
                continue;
            }
            None => problems.push(format!(
                "option {name:?} specified for {FIELD}. Valid options are \"pods\", \"system-reserved\", \
                 \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
            )),
        }
        if !values.bool("cgroupsPerQOS") {
            problems.push(format!(
                "cgroupsPerQOS (--cgroups-per-qos) must be set to true when {name:?} contained in {FIELD}"
            ));
        }
    }
}
