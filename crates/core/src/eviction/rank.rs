//! Who goes first (upstream: the ranking functions in `helpers.go`).

use std::cmp::Ordering;
use std::sync::Arc;

use coracle_provider::DiskStats;
use k8s_openapi::api::core::v1::Pod;

use super::signal::{Resource, Signal};
use crate::pod::PodExt;
use crate::pod_resources::resource_request;

/// What a pod uses, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct PodFigures {
    /// Its containers that run.
    pub containers: Vec<ContainerFigures>,
    /// What its emptyDirs on disk take.
    pub volumes: DiskStats,
    /// Processes and threads; 0 where nobody counts them.
    pub processes: u64,
}

/// What a container uses.
#[derive(Clone, Debug, Default)]
pub struct ContainerFigures {
    /// Its name.
    pub name: String,
    /// Memory that it works with, in bytes.
    pub memory: u64,
    /// What it wrote over its image.
    pub rootfs: Option<DiskStats>,
    /// Its logs.
    pub logs: Option<DiskStats>,
}

impl PodFigures {
    /// Memory that its containers work with, in bytes.
    pub fn memory(&self) -> u64 {
        self.containers.iter().fold(0, |sum, container| sum.saturating_add(container.memory))
    }

    /// What it takes on the disks that count (`podDiskUsage`): what its containers wrote, and their logs with its volumes.
    fn disk(&self, disks: Disks, resource: Resource) -> u64 {
        let of_containers = self.containers.iter().flat_map(|container| {
            [container.rootfs.filter(|_| disks.rootfs), container.logs.filter(|_| disks.node)]
        });
        let all = of_containers.flatten().chain(disks.node.then_some(self.volumes));
        let amounts = all.map(|stats| match resource {
            Resource::Inodes => stats.inodes_used,
            _ => stats.used_bytes,
        });
        amounts.fold(0, u64::saturating_add)
    }
}

/// What counts when a disk is full.
#[derive(Clone, Copy)]
struct Disks {
    /// What containers wrote over their images.
    rootfs: bool,
    /// Logs and volumes.
    node: bool,
}

/// Sorts pods, those that have to go first at the front (`buildSignalToRankFunc`). `figures` knows what a pod uses; one of
/// which it does not know goes before the others.
pub fn rank<'a>(
    pods: &mut [Arc<Pod>],
    signal: Signal,
    has_dedicated_image_fs: bool,
    figures: impl Fn(&Pod) -> Option<&'a PodFigures>,
) {
    match signal.resource() {
        Resource::Memory => pods.sort_by(|a, b| {
            let usage = |pod: &Pod| Some(signed(figures(pod)?.memory()));
            let request = |pod: &Pod| resource_request(pod, "memory");
            exceeds(a, b, &usage, &request)
                .then_with(|| priority(a).cmp(&priority(b)))
                .then_with(|| largest(a, b, &usage, &request))
        }),
        Resource::Pids => pods.sort_by(|a, b| {
            let usage = |pod: &Pod| Some(signed(figures(pod)?.processes));
            priority(a).cmp(&priority(b)).then_with(|| largest(a, b, &usage, &|_| 0))
        }),
        resource => {
            let of_images = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
            let disks = match (has_dedicated_image_fs, of_images) {
                (false, _) => Disks { rootfs: true, node: true },
                (true, is_images) => Disks { rootfs: is_images, node: !is_images },
            };
            pods.sort_by(|a, b| {
                let usage = |pod: &Pod| Some(signed(figures(pod)?.disk(disks, resource)));
                // Nobody can ask for inodes; how far a pod is above its request is measured in space all the same.
                exceeds(a, b, &usage, &|pod| resource_request(pod, resource.as_str()))
                    .then_with(|| priority(a).cmp(&priority(b)))
                    .then_with(|| largest(a, b, &usage, &|pod| resource_request(pod, "ephemeral-storage")))
            });
        }
    }
}

/// Who uses more than it asked for comes first.
fn exceeds(a: &Pod, b: &Pod, usage: &dyn Fn(&Pod) -> Option<i64>, request: &dyn Fn(&Pod) -> i64) -> Ordering {
    match (usage(a), usage(b)) {
        (Some(of_a), Some(of_b)) => first_if(of_a > request(a), of_b > request(b)),
        (of_a, of_b) => first_if(of_a.is_none(), of_b.is_none()),
    }
}

/// Who uses the most above what it asked for comes first.
fn largest(a: &Pod, b: &Pod, usage: &dyn Fn(&Pod) -> Option<i64>, request: &dyn Fn(&Pod) -> i64) -> Ordering {
    match (usage(a), usage(b)) {
        (Some(of_a), Some(of_b)) => of_b.saturating_sub(request(b)).cmp(&of_a.saturating_sub(request(a))),
        (of_a, of_b) => first_if(of_a.is_none(), of_b.is_none()),
    }
}

/// True before false (`cmpBool`).
fn first_if(a: bool, b: bool) -> Ordering {
    b.cmp(&a)
}

fn priority(pod: &Pod) -> i32 {
    pod.pod_spec().priority.unwrap_or_default()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Name, priority, requests of memory and disk in MiB, usage of memory, root file system, logs and volumes in MiB, or
    /// none that is known.
    type Row = (&'static str, i32, (u64, u64), Option<[u64; 4]>);

    fn order(rows: &[Row], signal: Signal, has_dedicated_image_fs: bool) -> Vec<&'static str> {
        let pod = |(name, priority, (memory, disk), _): &Row| -> Arc<Pod> {
            let mut requests = serde_json::Map::new();
            for (resource, amount) in [("memory", memory), ("ephemeral-storage", disk)] {
                if *amount > 0 {
                    requests.insert(resource.to_owned(), json!(format!("{amount}Mi")));
                }
            }
            let spec = json!({"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": requests}}]});
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
        };
        let stats = |mib: u64| DiskStats { used_bytes: mib * MIB, inodes_used: mib };
        let figures: HashMap<&str, PodFigures> = rows
            .iter()
            .filter_map(|(name, _, _, used)| {
                let [memory, rootfs, logs, volumes] = (*used)?;
                let container = ContainerFigures {
                    name: "c".to_owned(),
                    memory: memory * MIB,
                    rootfs: Some(stats(rootfs)),
                    logs: Some(stats(logs)),
                };
                let figures =
                    PodFigures { containers: vec![container], volumes: stats(volumes), processes: memory };
                Some((*name, figures))
            })
            .collect();
        let mut pods: Vec<Arc<Pod>> = rows.iter().map(pod).collect();
        rank(&mut pods, signal, has_dedicated_image_fs, |pod| figures.get(pod.name()));
        pods.iter().map(|pod| rows.iter().find(|row| row.0 == pod.name()).unwrap().0).collect()
    }

    /// `TestOrderedByPriorityMemory`, `TestOrderedByMemory`, `TestOrderedByExceedsRequestMemory`.
    #[test]
    fn memory_goes_by_requests_then_priority_then_usage() {
        let rows: [Row; 6] = [
            ("above-high", 2000, (100, 0), Some([500, 0, 0, 0])),
            ("above-low-less", 0, (100, 0), Some([200, 0, 0, 0])),
            ("above-low-more", 0, (100, 0), Some([500, 0, 0, 0])),
            ("below-high", 2000, (1000, 0), Some([900, 0, 0, 0])),
            ("below-low", 0, (1000, 0), Some([100, 0, 0, 0])),
            ("unknown", 2000, (1000, 0), None),
        ];
        let expected =
            ["unknown", "above-low-more", "above-low-less", "above-high", "below-low", "below-high"];
        for signal in [Signal::MemoryAvailable, Signal::AllocatableMemoryAvailable] {
            assert_eq!(order(&rows, signal, false), expected);
        }
    }

    /// `TestOrderedByPriorityProcess`.
    #[test]
    fn processes_go_by_priority_then_usage() {
        let rows: [Row; 4] = [
            ("high-most", 1000, (0, 0), Some([90, 0, 0, 0])),
            ("low-less", 0, (0, 0), Some([10, 0, 0, 0])),
            ("low-more", 0, (0, 0), Some([20, 0, 0, 0])),
            ("low-unknown", 0, (0, 0), None),
        ];
        assert_eq!(
            order(&rows, Signal::PidAvailable, false),
            ["low-unknown", "low-more", "low-less", "high-most"]
        );
    }

    /// `TestOrderedByPriorityDisk`, `TestOrderedbyDisk`, `TestOrderedByExceedsRequestDisk`.
    #[test]
    fn disks_go_by_requests_then_priority_then_usage() {
        let rows: [Row; 5] = [
            ("above-high", 2000, (0, 200), Some([0, 200, 150, 150])),
            ("above-low", 0, (0, 200), Some([0, 200, 50, 50])),
            ("above-low-more", 0, (0, 200), Some([0, 200, 150, 150])),
            ("below-high", 2000, (0, 400), Some([0, 100, 100, 100])),
            ("below-low", 0, (0, 400), Some([0, 100, 150, 100])),
        ];
        let expected = ["above-low-more", "above-low", "above-high", "below-low", "below-high"];
        assert_eq!(order(&rows, Signal::NodeFsAvailable, false), expected);
        assert_eq!(order(&rows, Signal::ImageFsAvailable, false), expected);
    }

    /// `TestOrderedByPriorityInodes`: nobody asks for any, so everybody is above that.
    #[test]
    fn inodes_go_by_priority_then_usage() {
        let rows: [Row; 3] = [
            ("high", 1000, (0, 0), Some([0, 100, 0, 0])),
            ("low", 0, (0, 0), Some([0, 10, 5, 5])),
            ("low-more", 0, (0, 0), Some([0, 10, 50, 5])),
        ];
        assert_eq!(order(&rows, Signal::NodeFsInodesFree, false), ["low-more", "low", "high"]);
    }

    #[test]
    fn what_is_on_another_disk_does_not_count() {
        let rows: [Row; 2] =
            [("root", 0, (0, 0), Some([0, 300, 1, 1])), ("logs", 0, (0, 0), Some([0, 1, 100, 100]))];
        assert_eq!(order(&rows, Signal::NodeFsAvailable, true), ["logs", "root"]);
        assert_eq!(order(&rows, Signal::ImageFsAvailable, true), ["root", "logs"]);
        assert_eq!(order(&rows, Signal::NodeFsAvailable, false), ["root", "logs"]);
    }
}
