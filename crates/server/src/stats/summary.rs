//! From what was measured to what the API shows (upstream: `summary.go`, `stats/helper.go`).

use coracle_core::machine::{FileSystem, NodeUsage};
use coracle_core::ports::VolumeUsage;
use coracle_core::stats::{ContainerUsage, PodUsage, UsageScope};
use coracle_provider::{DiskStats, FsUsage, NetworkStats as ProviderNetworkStats};
use jiff::Timestamp;

use super::api::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats, PodReference,
    PodStats, RlimitStats, RuntimeStats, Summary, SwapStats, VolumeStats,
};

/// `SystemContainerKubelet`.
const KUBELET: &str = "kubelet";
/// `SystemContainerPods`.
const PODS: &str = "pods";

/// The whole answer (`Get`, `GetCPUAndMemoryStats`).
pub(super) fn summary(
    node_name: &str,
    scope: UsageScope,
    node: &NodeUsage,
    image_fs: &[FsUsage],
    pods: &[PodUsage],
) -> Summary {
    let pods: Vec<PodStats> = pods.iter().map(|pod| pod_stats(scope, pod, &node.root_fs)).collect();
    Summary { node: node_stats(node_name, scope, node, image_fs, &pods), pods }
}

fn node_stats(
    node_name: &str,
    scope: UsageScope,
    node: &NodeUsage,
    image_fs: &[FsUsage],
    pods: &[PodStats],
) -> NodeStats {
    let time = time(node.timestamp);
    let everything = scope == UsageScope::Everything;
    NodeStats {
        node_name: node_name.to_owned(),
        system_containers: system_containers(node, pods, &time),
        start_time: self::time(node.boot_time),
        cpu: CpuStats {
            time: time.clone(),
            usage_nano_cores: None,
            usage_core_nano_seconds: node.cpu_usage_core_nanos,
        },
        memory: MemoryStats {
            time: time.clone(),
            available_bytes: Some(node.memory.available_bytes),
            usage_bytes: node.memory.usage_bytes,
            working_set_bytes: node.memory.working_set_bytes,
            rss_bytes: node.memory.rss_bytes,
            page_faults: Some(node.memory.page_faults),
            major_page_faults: Some(node.memory.major_page_faults),
        },
        network: everything.then(|| network_stats(&time, &node.interfaces)),
        fs: everything.then(|| root_fs_stats(&time, &node.root_fs)),
        runtime: image_fs.first().map(|fs| {
            let image_fs = image_fs_stats(&time, fs);
            // Containers here write nothing beside their images but what counts as the node's.
            let container_fs = FsStats { used_bytes: 0, inodes_used: 0, ..image_fs.clone() };
            RuntimeStats { image_fs, container_fs }
        }),
        rlimit: everything.then(|| RlimitStats {
            time: time.clone(),
            maxpid: node.max_pids,
            curproc: node.pids,
        }),
        swap: node.swap.map(|(available, used)| SwapStats {
            time: time.clone(),
            swap_available_bytes: available,
            swap_usage_bytes: used,
        }),
    }
}

/// This process, and all pods together. Pods that run in this process are in both.
fn system_containers(node: &NodeUsage, pods: &[PodStats], time: &str) -> Vec<ContainerStats> {
    let system = |name: &str, start_time: String, cpu_nanos: u64, working_set_bytes: u64| ContainerStats {
        name: name.to_owned(),
        start_time,
        cpu: CpuStats { time: time.to_owned(), usage_nano_cores: None, usage_core_nano_seconds: cpu_nanos },
        memory: MemoryStats {
            time: time.to_owned(),
            available_bytes: None,
            usage_bytes: working_set_bytes,
            working_set_bytes,
            rss_bytes: working_set_bytes,
            page_faults: None,
            major_page_faults: None,
        },
        rootfs: None,
        logs: None,
    };
    let kubelet = &node.kubelet;
    let cpu_nanos = pods.iter().map(|pod| pod.cpu.usage_core_nano_seconds).sum();
    let bytes = pods.iter().map(|pod| pod.memory.working_set_bytes).sum();
    vec![
        system(KUBELET, self::time(kubelet.started_at), kubelet.cpu_nanos, kubelet.resident_bytes),
        system(PODS, self::time(node.boot_time), cpu_nanos, bytes),
    ]
}

fn pod_stats(scope: UsageScope, pod: &PodUsage, root_fs: &FileSystem) -> PodStats {
    let containers: Vec<_> =
        pod.containers.iter().map(|container| container_stats(container, root_fs)).collect();
    let at = pod.containers.iter().map(|container| container.stats.timestamp).min().unwrap_or_default();
    let sum = |of: fn(&ContainerStats) -> u64| containers.iter().map(of).sum::<u64>();
    // Known only once all of them are.
    let rates: Option<Vec<u64>> = containers.iter().map(|container| container.cpu.usage_nano_cores).collect();
    PodStats {
        pod_ref: PodReference {
            name: pod.pod.name.clone(),
            namespace: pod.pod.namespace.clone(),
            uid: pod.pod.uid.clone(),
        },
        start_time: time(pod.started_at),
        cpu: CpuStats {
            time: time(at),
            usage_nano_cores: rates.map(|rates| rates.iter().sum()),
            usage_core_nano_seconds: sum(|container| container.cpu.usage_core_nano_seconds),
        },
        memory: MemoryStats {
            time: time(at),
            available_bytes: None,
            usage_bytes: sum(|container| container.memory.usage_bytes),
            working_set_bytes: sum(|container| container.memory.working_set_bytes),
            rss_bytes: sum(|container| container.memory.rss_bytes),
            page_faults: None,
            major_page_faults: None,
        },
        network: pod.network.as_ref().map(pod_network_stats),
        volumes: pod.volumes.iter().map(volume_stats).collect(),
        ephemeral_storage: (scope == UsageScope::Everything).then(|| ephemeral_storage(at, pod, root_fs)),
        containers,
    }
}

fn container_stats(container: &ContainerUsage, root_fs: &FileSystem) -> ContainerStats {
    let (status, stats) = (&container.status, &container.stats);
    let time = time(stats.timestamp);
    let limit = status.resources.memory_limit_bytes;
    let disk = |disk: DiskStats| disk_stats(&time, disk, root_fs);
    ContainerStats {
        name: status.name.clone(),
        start_time: self::time(status.started_at.unwrap_or(status.created_at)),
        cpu: CpuStats {
            time: time.clone(),
            usage_nano_cores: container.cpu_usage_nano_cores,
            usage_core_nano_seconds: stats.cpu_usage_core_nanos,
        },
        memory: MemoryStats {
            time: time.clone(),
            available_bytes: limit.map(|limit| limit.saturating_sub(stats.memory.working_set_bytes)),
            usage_bytes: stats.memory.usage_bytes,
            working_set_bytes: stats.memory.working_set_bytes,
            rss_bytes: stats.memory.rss_bytes,
            page_faults: None,
            major_page_faults: None,
        },
        rootfs: stats.writable_layer.map(disk),
        logs: container.logs.map(disk),
    }
}

/// `parsePodVolumeStats`.
fn volume_stats(volume: &VolumeUsage) -> VolumeStats {
    let disk = DiskStats { used_bytes: volume.used_bytes, inodes_used: volume.inodes_used };
    VolumeStats { fs: disk_stats(&time(volume.at), disk, &volume.file_system), name: volume.volume.clone() }
}

/// What containers wrote, to their logs, beside their images and to volumes that end with the pod
/// (`calcEphemeralStorage`).
fn ephemeral_storage(at: Timestamp, pod: &PodUsage, root_fs: &FileSystem) -> FsStats {
    let disks = pod.containers.iter().flat_map(|container| [container.logs, container.stats.writable_layer]);
    let volumes = pod.volumes.iter().filter(|volume| volume.is_ephemeral);
    let volumes = volumes.map(|it| DiskStats { used_bytes: it.used_bytes, inodes_used: it.inodes_used });
    let sum = disks.flatten().chain(volumes).fold(DiskStats::default(), |sum, disk| DiskStats {
        used_bytes: sum.used_bytes.saturating_add(disk.used_bytes),
        inodes_used: sum.inodes_used.saturating_add(disk.inodes_used),
    });
    disk_stats(&time(at), sum, root_fs)
}

/// A part of the node's file system.
fn disk_stats(time: &str, disk: DiskStats, root_fs: &FileSystem) -> FsStats {
    FsStats { used_bytes: disk.used_bytes, inodes_used: disk.inodes_used, ..root_fs_stats(time, root_fs) }
}

fn root_fs_stats(time: &str, fs: &FileSystem) -> FsStats {
    FsStats {
        time: time.to_owned(),
        available_bytes: Some(fs.available_bytes),
        capacity_bytes: Some(fs.capacity_bytes),
        used_bytes: fs.used_bytes,
        inodes_free: Some(fs.inodes_free),
        inodes: Some(fs.inodes),
        inodes_used: fs.inodes.saturating_sub(fs.inodes_free),
    }
}

fn image_fs_stats(time: &str, fs: &FsUsage) -> FsStats {
    FsStats {
        time: time.to_owned(),
        available_bytes: Some(fs.available_bytes),
        capacity_bytes: Some(fs.capacity_bytes),
        used_bytes: fs.used_bytes,
        inodes_free: None,
        inodes: None,
        inodes_used: fs.inodes_used,
    }
}

fn pod_network_stats(network: &ProviderNetworkStats) -> NetworkStats {
    network_stats(&time(network.timestamp), &network.interfaces)
}

fn network_stats(time: &str, interfaces: &[coracle_provider::InterfaceStats]) -> NetworkStats {
    let interfaces: Vec<InterfaceStats> = interfaces.iter().map(interface_stats).collect();
    NetworkStats {
        time: time.to_owned(),
        default: interfaces.first().cloned().unwrap_or_default(),
        interfaces,
    }
}

fn interface_stats(interface: &coracle_provider::InterfaceStats) -> InterfaceStats {
    InterfaceStats {
        name: interface.name.clone(),
        rx_bytes: Some(interface.rx_bytes),
        rx_errors: Some(interface.rx_errors),
        tx_bytes: Some(interface.tx_bytes),
        tx_errors: Some(interface.tx_errors),
    }
}

/// As `metav1.Time` writes times: whole seconds.
fn time(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
