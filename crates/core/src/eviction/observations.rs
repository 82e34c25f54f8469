//! From what is measured to what it means (upstream: `makeSignalObservations` and `thresholdsMet` in `helpers.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::signal::{NodeCondition, Signal};
use super::threshold::Threshold;
use crate::machine::{FileSystem, NodeUsage};
use crate::quantity::{Format, Quantity};

/// A signal at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is left.
    pub available: Quantity,
    /// What there is.
    pub capacity: Quantity,
}

/// What was observed. A signal that is missing meets no threshold.
pub type Observations = BTreeMap<Signal, Observation>;

/// The disks of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystems {
    /// Where images and what containers write are; none if the runtime does not say.
    pub images: Option<FileSystem>,
    /// Whether that is another disk than the node's own (`HasDedicatedImageFs`).
    pub has_dedicated_image_fs: bool,
}

/// Reads the signals. `pods` is memory that pods as a whole have left, and that they may have, where they have a limit.
pub fn observe(node: &NodeUsage, disks: &FileSystems, pods: Option<(u64, u64)>) -> Observations {
    let bytes = |available, capacity| observation(available, capacity, Format::BinarySi);
    let numbers = |available, capacity| observation(available, capacity, Format::DecimalSi);
    let memory = &node.memory;
    let mut all = Observations::from([
        (
            Signal::MemoryAvailable,
            bytes(memory.available_bytes, memory.available_bytes.saturating_add(memory.working_set_bytes)),
        ),
        (Signal::PidAvailable, numbers(node.max_pids.saturating_sub(node.pids), node.max_pids)),
    ]);
    all.extend(pods.map(|(left, limit)| (Signal::AllocatableMemoryAvailable, bytes(left, limit))));
    let of_disk = |disk: &FileSystem, space, inodes| {
        let space =
            (disk.capacity_bytes > 0).then(|| (space, bytes(disk.available_bytes, disk.capacity_bytes)));
        // Some file systems make inodes as they need them, and count none.
        let inodes = (disk.inodes > 0).then(|| (inodes, numbers(disk.inodes_free, disk.inodes)));
        space.into_iter().chain(inodes)
    };
    all.extend(of_disk(&node.root_fs, Signal::NodeFsAvailable, Signal::NodeFsInodesFree));
    if let Some(images) = &disks.images {
        all.extend(of_disk(images, Signal::ImageFsAvailable, Signal::ImageFsInodesFree));
    }
    all
}

fn observation(available: u64, capacity: u64, format: Format) -> Observation {
    let quantity = |value: u64| Quantity::new(i64::try_from(value).unwrap_or(i64::MAX), format);
    Observation { available: quantity(available), capacity: quantity(capacity) }
}

/// The thresholds that are met, whatever their grace periods. With `enforce_min_reclaim`, one is met until so much more is
/// there as is to be reclaimed.
pub fn thresholds_met(
    thresholds: &[Threshold],
    observations: &Observations,
    enforce_min_reclaim: bool,
) -> Vec<Threshold> {
    let is_met = |threshold: &&Threshold| {
        let Some(observed) = observations.get(&threshold.signal) else { return false };
        let reclaim = threshold.min_reclaim.filter(|_| enforce_min_reclaim);
        let reclaim = reclaim.map_or(Quantity::ZERO, |value| value.amount(observed.capacity));
        threshold.value.amount(observed.capacity) + reclaim > observed.available
    };
    thresholds.iter().filter(is_met).copied().collect()
}

/// Adds those that are not there yet (`mergeThresholds`).
pub(super) fn merge(mut thresholds: Vec<Threshold>, more: Vec<Threshold>) -> Vec<Threshold> {
    for threshold in more {
        if !thresholds.iter().any(|it| it.is_same(&threshold)) {
            thresholds.push(threshold);
        }
    }
    thresholds
}

/// When each was met first, without a break (`thresholdsFirstObservedAt`).
pub(super) fn first_observed_at(
    thresholds: &[Threshold],
    before: &[(Threshold, Instant)],
    now: Instant,
) -> Vec<(Threshold, Instant)> {
    let since = |threshold: &Threshold| {
        let known = before.iter().find(|(other, _)| other == threshold);
        (*threshold, known.map_or(now, |(_, at)| *at))
    };
    thresholds.iter().map(since).collect()
}

/// Those that were met for long enough (`thresholdsMetGracePeriod`).
pub(super) fn met_grace_period(observed_at: &[(Threshold, Instant)], now: Instant) -> Vec<Threshold> {
    let met = observed_at.iter().filter(|(threshold, at)| now.duration_since(*at) >= threshold.grace_period);
    met.map(|(threshold, _)| *threshold).collect()
}

/// When each condition held last (`nodeConditionsLastObservedAt`).
pub(super) fn last_observed_at(
    thresholds: &[Threshold],
    mut before: BTreeMap<NodeCondition, Instant>,
    now: Instant,
) -> BTreeMap<NodeCondition, Instant> {
    before.extend(thresholds.iter().map(|threshold| (threshold.signal.condition(), now)));
    before
}

/// Those that held within this time (`nodeConditionsObservedSince`).
pub(super) fn observed_since(
    observed_at: &BTreeMap<NodeCondition, Instant>,
    period: Duration,
    now: Instant,
) -> Vec<NodeCondition> {
    let recent = observed_at.iter().filter(|(_, at)| now.duration_since(**at) < period);
    recent.map(|(condition, _)| *condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::ThresholdValue;
    use crate::machine::NodeMemory;

    const GIB: u64 = 1 << 30;

    fn value(text: &str) -> ThresholdValue {
        match text.strip_suffix('%') {
            Some(number) => ThresholdValue::Percentage(number.parse::<f32>().unwrap() / 100.0),
            None => ThresholdValue::Quantity(Quantity::parse(text).unwrap()),
        }
    }

    fn threshold(signal: Signal, text: &str, reclaim: Option<&str>) -> Threshold {
        Threshold {
            signal,
            value: value(text),
            grace_period: Duration::ZERO,
            min_reclaim: reclaim.map(value),
        }
    }

    /// `TestMakeSignalObservations`.
    #[test]
    fn signals_are_what_is_left_of_what_there_is() {
        let disk = |free| FileSystem {
            capacity_bytes: 10 * GIB,
            available_bytes: free,
            inodes: 100,
            inodes_free: 7,
            ..FileSystem::default()
        };
        let node = NodeUsage {
            memory: NodeMemory { available_bytes: GIB, working_set_bytes: 3 * GIB, ..NodeMemory::default() },
            root_fs: disk(2 * GIB),
            max_pids: 1000,
            pids: 990,
            ..NodeUsage::default()
        };
        let disks = FileSystems { images: Some(disk(5 * GIB)), has_dedicated_image_fs: true };
        let text = |observations: &Observations| {
            let list = observations.iter().map(|(s, o)| format!("{s} {} of {}", o.available, o.capacity));
            list.collect::<Vec<_>>()
        };
        let all = observe(&node, &disks, Some((GIB, 2 * GIB)));
        assert_eq!(
            text(&all),
            [
                "memory.available 1Gi of 4Gi",
                "allocatableMemory.available 1Gi of 2Gi",
                "nodefs.available 2Gi of 10Gi",
                "nodefs.inodesFree 7 of 100",
                "imagefs.available 5Gi of 10Gi",
                "imagefs.inodesFree 7 of 100",
                "pid.available 10 of 1k",
            ]
        );
        let without_inodes = NodeUsage { root_fs: FileSystem { inodes: 0, ..node.root_fs }, ..node.clone() };
        let few = observe(&without_inodes, &FileSystems::default(), None);
        assert_eq!(
            text(&few),
            ["memory.available 1Gi of 4Gi", "nodefs.available 2Gi of 10Gi", "pid.available 10 of 1k"]
        );
    }

    /// `TestThresholdsMet`, `TestPercentageThresholdsMet`.
    #[test]
    fn a_threshold_is_met_below_it_and_until_enough_is_reclaimed() {
        let observed = |available: &str| {
            let available = Quantity::parse(available).unwrap();
            let capacity = Quantity::parse("1Gi").unwrap();
            Observations::from([(Signal::MemoryAvailable, Observation { available, capacity })])
        };
        let memory = |text, reclaim| threshold(Signal::MemoryAvailable, text, reclaim);
        // Threshold, to reclaim, available; met, met while reclaiming.
        let table = [
            ("500Mi", None, "400Mi", true, true),
            ("500Mi", None, "500Mi", false, false),
            ("500Mi", Some("100Mi"), "500Mi", false, true),
            ("500Mi", Some("100Mi"), "600Mi", false, false),
            ("20%", None, "200Mi", true, true),
            ("20%", Some("10%"), "220Mi", false, true),
            ("20%", Some("10%"), "320Mi", false, false),
        ];
        for (text, reclaim, available, met, reclaiming) in table {
            let thresholds = [memory(text, reclaim)];
            let is_met = |enforce| !thresholds_met(&thresholds, &observed(available), enforce).is_empty();
            assert_eq!((is_met(false), is_met(true)), (met, reclaiming), "{text} {reclaim:?} {available}");
        }
        let other = [threshold(Signal::NodeFsAvailable, "1Gi", None)];
        assert!(thresholds_met(&other, &observed("1"), false).is_empty(), "nobody knows");
    }

    /// `TestThresholdsFirstObservedAt`, `TestThresholdsMetGracePeriod`.
    #[tokio::test(start_paused = true)]
    async fn a_grace_period_begins_when_a_threshold_is_met_first() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let soft = Threshold { grace_period: minute, ..threshold(Signal::MemoryAvailable, "1Gi", None) };
        let hard = threshold(Signal::NodeFsAvailable, "1Gi", None);
        let first = first_observed_at(&[soft, hard], &[], start);
        assert_eq!(met_grace_period(&first, start), [hard]);
        let then = first_observed_at(&[soft], &first, start + minute);
        assert_eq!(
            (then.as_slice(), met_grace_period(&then, start + minute)),
            (&[(soft, start)][..], vec![soft])
        );
        let anew = first_observed_at(&[soft], &[], start + minute);
        assert_eq!(met_grace_period(&anew, start + minute), []);
    }

    /// `TestNodeConditionsLastObservedAt`, `TestNodeConditionsObservedSince`.
    #[tokio::test(start_paused = true)]
    async fn a_condition_holds_for_a_while_after_it_was_seen() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let inodes = threshold(Signal::NodeFsInodesFree, "5%", None);
        let seen = last_observed_at(&[inodes], BTreeMap::new(), start);
        let later = last_observed_at(&[], seen, start + minute);
        assert_eq!(observed_since(&later, 2 * minute, start + minute), [NodeCondition::DiskPressure]);
        assert_eq!(observed_since(&later, 2 * minute, start + 2 * minute), []);
    }

    #[test]
    fn the_same_threshold_counts_once() {
        let one = threshold(Signal::MemoryAvailable, "1Gi", None);
        let other = threshold(Signal::MemoryAvailable, "2Gi", None);
        assert_eq!(
            merge(vec![one], vec![Threshold { min_reclaim: Some(value("1Mi")), ..one }, other]),
            [one, other]
        );
    }
}
