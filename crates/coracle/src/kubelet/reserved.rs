//! What of the machine the Node does not offer to pods (upstream: `GetNodeAllocatableReservation` and
//! `validateNodeAllocatable` in `pkg/kubelet/cm/node_container_manager_linux.go`).

use anyhow::bail;
use coracle_core::eviction::hard_reservation;
use coracle_core::machine::MachineInfo;
use coracle_core::nodestatus::Reserved;
use coracle_core::quantity::{Format, Quantity};

use crate::config::{Resolved, eviction, node_resources};

/// `systemReserved`, `kubeReserved` and the hard thresholds of eviction, summed up.
pub(super) fn reserved(resolved: &Resolved, machine: &MachineInfo) -> Reserved {
    let config = &resolved.config;
    let lists = [&config.system_reserved, &config.kube_reserved].map(node_resources::known);
    let sum = |name: &str, read: fn(&Quantity) -> i64| {
        let amounts = lists.iter().filter_map(|list| list.get(name)).map(read);
        amounts.map(|amount| u64::try_from(amount).unwrap_or_default()).sum()
    };
    let ignores = resolved.flags.allocatable_ignore_eviction;
    let thresholds = if ignores { Vec::new() } else { eviction::known(config, ignores).thresholds };
    let (memory, storage) =
        hard_reservation(&thresholds, bytes(machine.memory_bytes), bytes(machine.root_fs_bytes));
    let and =
        |bytes: u64, more: Quantity| bytes.saturating_add(u64::try_from(more.value()).unwrap_or_default());
    Reserved {
        cpu_millis: sum("cpu", Quantity::milli_value),
        memory_bytes: and(sum("memory", Quantity::value), memory),
        ephemeral_storage_bytes: and(sum("ephemeral-storage", Quantity::value), storage),
    }
}

/// No more can be kept from pods than there is.
pub(super) fn check_reserved(reserved: &Reserved, machine: &MachineInfo) -> anyhow::Result<()> {
    let millis =
        |value: u64| Quantity::new_milli(i64::try_from(value).unwrap_or(i64::MAX), Format::DecimalSi);
    let all = [
        ("cpu", millis(reserved.cpu_millis), millis(u64::from(machine.cpus) * 1000)),
        ("memory", bytes(reserved.memory_bytes), bytes(machine.memory_bytes)),
        ("ephemeral-storage", bytes(reserved.ephemeral_storage_bytes), bytes(machine.root_fs_bytes)),
    ];
    for (name, reserved, capacity) in all {
        if reserved > capacity {
            bail!(
                "invalid Node Allocatable configuration. Resource {name:?} has a reservation of {reserved} but capacity \
                 of {capacity}. Expected capacity >= reservation."
            );
        }
    }
    Ok(())
}

fn bytes(value: u64) -> Quantity {
    Quantity::new(i64::try_from(value).unwrap_or(i64::MAX), Format::BinarySi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_can_be_reserved_than_there_is() {
        let machine =
            MachineInfo { cpus: 2, memory_bytes: 1 << 30, root_fs_bytes: 1 << 30, ..MachineInfo::default() };
        let of = |cpu_millis, memory_bytes| Reserved { cpu_millis, memory_bytes, ephemeral_storage_bytes: 0 };
        check_reserved(&of(2000, 1 << 30), &machine).unwrap();
        assert!(check_reserved(&of(2001, 0), &machine).is_err());
        let error = check_reserved(&of(0, 2 << 30), &machine).unwrap_err().to_string();
        assert!(
            error.contains("Resource \"memory\" has a reservation of 2Gi but capacity of 1Gi."),
            "{error}"
        );
    }
}
