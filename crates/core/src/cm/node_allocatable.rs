//! What of the machine is for pods (upstream: `node_container_manager_linux.go`).

use std::collections::BTreeSet;

use coracle_provider::cpu::millis_to_shares;

use super::resource_config::{ResourceConfig, huge_page_limits};
use crate::pod_resources::Resources;
use crate::quantity::Quantity;

/// Resources that are kept from pods, by name: `cpu`, `memory`, `ephemeral-storage`, `pid`.
pub type ReservedResources = Resources;

/// What is held to its share by a control group (`enforceNodeAllocatable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcement {
    /// All pods together.
    Pods,
    /// What is not Kubernetes.
    SystemReserved,
    /// What is Kubernetes and no pod.
    KubeReserved,
    /// Of what is not Kubernetes, its processor time only.
    SystemReservedCompressible,
    /// Of what is Kubernetes and no pod, its processor time only.
    KubeReservedCompressible,
}

impl Enforcement {
    /// By its name in the configuration; `none` is none.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "pods" => Some(Self::Pods),
            "system-reserved" => Some(Self::SystemReserved),
            "kube-reserved" => Some(Self::KubeReserved),
            "system-reserved-compressible" => Some(Self::SystemReservedCompressible),
            "kube-reserved-compressible" => Some(Self::KubeReservedCompressible),
            _ => None,
        }
    }
}

/// What the machine has, and what of it is not for pods (`NodeAllocatableConfig`).
#[derive(Clone, Debug, Default)]
pub struct NodeAllocatable {
    /// What there is, process ids (`pid`) included.
    pub capacity: Resources,
    /// `kubeReserved`.
    pub kube_reserved: ReservedResources,
    /// `systemReserved`.
    pub system_reserved: ReservedResources,
    /// `kubeReservedCgroup`: a path below the mount of a hierarchy.
    pub kube_reserved_cgroup: String,
    /// `systemReservedCgroup`: a path below the mount of a hierarchy.
    pub system_reserved_cgroup: String,
    /// `enforceNodeAllocatable`.
    pub enforce: BTreeSet<Enforcement>,
}

impl NodeAllocatable {
    /// What all pods together are held to (`getNodeAllocatableInternalAbsolute`); thresholds of eviction are no part of it.
    pub(super) fn limits_of_pods(&self) -> ResourceConfig {
        let enforced = self.enforce.contains(&Enforcement::Pods);
        let limits = self.capacity.iter().map(|(name, capacity)| {
            let reserved = [&self.system_reserved, &self.kube_reserved].into_iter().filter(|_| enforced);
            let rest =
                reserved.filter_map(|list| list.get(name)).fold(*capacity, |rest, reserved| rest - *reserved);
            (name.clone(), rest.max(Quantity::ZERO))
        });
        group_config(&limits.collect(), false)
    }

    /// What else is held to its share: its control group, its limits, and what it is called in Events.
    pub(super) fn limits_of_others(&self) -> Vec<(&str, ResourceConfig, &'static str)> {
        let (system, kube) = (
            (self.system_reserved_cgroup.as_str(), &self.system_reserved),
            (self.kube_reserved_cgroup.as_str(), &self.kube_reserved),
        );
        let all = [
            (Enforcement::SystemReserved, system, false, "system reserved"),
            (Enforcement::KubeReserved, kube, false, "kube reserved"),
            (Enforcement::SystemReservedCompressible, system, true, "system reserved"),
            (Enforcement::KubeReservedCompressible, kube, true, "kube reserved"),
        ];
        let chosen = all.into_iter().filter(|(enforcement, ..)| self.enforce.contains(enforcement));
        chosen
            .map(|(_, (cgroup, reserved), compressible, what)| {
                (cgroup, group_config(reserved, compressible), what)
            })
            .collect()
    }
}

/// `getCgroupConfigInternal`.
fn group_config(resources: &Resources, compressible_only: bool) -> ResourceConfig {
    let millis = |amount: &Quantity| u64::try_from(amount.milli_value()).unwrap_or_default();
    let cpu_shares = resources.get("cpu").map(|amount| millis_to_shares(millis(amount)));
    if compressible_only {
        return ResourceConfig { cpu_shares, ..ResourceConfig::default() };
    }
    ResourceConfig {
        memory: resources.get("memory").map(Quantity::value),
        cpu_shares,
        pids: resources.get("pid").map(Quantity::value),
        huge_pages: Some(huge_page_limits(resources)),
        ..ResourceConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(amounts: &[(&str, &str)]) -> Resources {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), Quantity::parse(amount).unwrap())).collect()
    }

    fn allocatable(enforce: &[&str]) -> NodeAllocatable {
        NodeAllocatable {
            capacity: list(&[("cpu", "4"), ("memory", "8Gi"), ("pid", "1000"), ("ephemeral-storage", "1Gi")]),
            kube_reserved: list(&[("cpu", "500m"), ("memory", "1Gi")]),
            system_reserved: list(&[("cpu", "500m"), ("memory", "8Gi"), ("pid", "100")]),
            kube_reserved_cgroup: "/kube".to_owned(),
            system_reserved_cgroup: "/system".to_owned(),
            enforce: enforce.iter().filter_map(|name| Enforcement::parse(name)).collect(),
        }
    }

    /// `TestNodeAllocatableForEnforcement`: what is not there cannot be less than nothing.
    #[test]
    fn pods_have_what_is_not_reserved() {
        let limits = allocatable(&["pods"]).limits_of_pods();
        assert_eq!((limits.cpu_shares, limits.memory, limits.pids), (Some(3072), Some(0), Some(900)));
        let all = allocatable(&["none"]).limits_of_pods();
        assert_eq!((all.cpu_shares, all.memory, all.pids), (Some(4096), Some(8 << 30), Some(1000)));
    }

    #[test]
    fn others_are_held_to_what_is_reserved_for_them() {
        let of = |enforce: &[&str]| {
            let allocatable = allocatable(enforce);
            let others = allocatable.limits_of_others().into_iter();
            others
                .map(|(cgroup, config, _)| (cgroup.to_owned(), config.cpu_shares, config.memory))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&["pods"]), []);
        assert_eq!(of(&["kube-reserved"]), [("/kube".to_owned(), Some(512), Some(1 << 30))]);
        assert_eq!(
            of(&["kube-reserved-compressible", "system-reserved"]),
            [("/system".to_owned(), Some(512), Some(8 << 30)), ("/kube".to_owned(), Some(512), None)]
        );
    }
}
