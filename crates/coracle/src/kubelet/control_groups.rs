//! The control groups of a node with a container runtime (upstream: `NewContainerManager` and its start).

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use coracle_core::cm::{
    CgroupDriver, CgroupName, ContainerManager, ContainerManagerOptions, Enforcement, NodeAllocatable,
};
use coracle_core::machine::MachineInfo;
use coracle_core::pod_resources::Resources;
use coracle_core::ports::NodeUsageSource as _;
use coracle_core::quantity::{Format, Quantity};
use coracle_node::{Cgroups, NodeUsageReader};

use super::containers::Containers;
use crate::config::{KubeletConfiguration, Resolved, node_resources};

/// Makes the groups above those of pods. None on a node where pods have none of their own.
pub(super) async fn container_manager(
    resolved: &Resolved,
    containers: Option<&Containers>,
    machine: &MachineInfo,
) -> anyhow::Result<Option<Arc<ContainerManager>>> {
    let (config, Some(containers)) = (&resolved.config, containers) else { return Ok(None) };
    if !config.cgroups_per_qos && config.enforce_node_allocatable.is_empty() {
        return Ok(None);
    }
    let configured = match config.cgroup_driver.as_str() {
        "systemd" => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let driver = containers.cgroup_driver().await?.unwrap_or(configured);
    tracing::info!(?driver, "control groups");
    let usage = NodeUsageReader::new(&resolved.flags.root_dir);
    let max_pids = usage.node_usage().map_err(|error| anyhow!(error))?.max_pids;
    let manager = ContainerManager::new(Arc::new(Cgroups::find(driver)?), options(config, machine, max_pids));
    manager.start().await.context("cannot make the control groups of pods")?;
    for done in manager.enforce_reservations().await.map_err(|error| anyhow!(error))? {
        tracing::info!("{done}");
    }
    Ok(manager.has_pod_cgroups().then(|| Arc::new(manager)))
}

fn options(config: &KubeletConfiguration, machine: &MachineInfo, max_pids: u64) -> ContainerManagerOptions {
    ContainerManagerOptions {
        // The configuration has a path of folders, whoever makes them.
        cgroup_root: CgroupName::parse(&config.cgroup_root, CgroupDriver::Cgroupfs),
        cgroups_per_qos: config.cgroups_per_qos,
        pod_pids_limit: (config.pod_pids_limit > 0).then_some(config.pod_pids_limit),
        enforce_cpu_limits: config.cpu_cfs_quota,
        cpu_quota_period: i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(i64::MAX),
        node_allocatable: NodeAllocatable {
            capacity: capacity(machine, max_pids),
            kube_reserved: node_resources::known(&config.kube_reserved),
            system_reserved: node_resources::known(&config.system_reserved),
            kube_reserved_cgroup: config.kube_reserved_cgroup.clone(),
            system_reserved_cgroup: config.system_reserved_cgroup.clone(),
            enforce: config
                .enforce_node_allocatable
                .iter()
                .filter_map(|name| Enforcement::parse(name))
                .collect(),
        },
    }
}

fn capacity(machine: &MachineInfo, max_pids: u64) -> Resources {
    let amount = |value: u64| Quantity::new(i64::try_from(value).unwrap_or(i64::MAX), Format::BinarySi);
    let all = [
        ("cpu", Quantity::new(machine.cpus.into(), Format::DecimalSi)),
        ("memory", amount(machine.memory_bytes)),
        ("ephemeral-storage", amount(machine.root_fs_bytes)),
        ("pid", amount(max_pids)),
    ];
    all.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
}
