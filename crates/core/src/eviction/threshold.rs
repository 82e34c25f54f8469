//! Below what a signal has to be for pods to go (upstream: `Threshold` in `eviction/api/types.go`).

use std::time::Duration;

use super::signal::Signal;
use crate::quantity::{Format, Quantity};

/// An amount, or a share of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ThresholdValue {
    /// An amount.
    Quantity(Quantity),
    /// A share, from 0 to 1.
    Percentage(f32),
}

impl ThresholdValue {
    /// How much that is of a capacity (`GetThresholdQuantity`).
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as upstream rounds it")]
    pub fn amount(self, capacity: Quantity) -> Quantity {
        match self {
            Self::Quantity(quantity) => quantity,
            Self::Percentage(share) => {
                Quantity::new((capacity.value() as f64 * f64::from(share)) as i64, Format::BinarySi)
            }
        }
    }
}

/// When to evict pods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is observed.
    pub signal: Signal,
    /// What it may not be less than.
    pub value: ThresholdValue,
    /// For how long it has to be less; zero for a hard threshold.
    pub grace_period: Duration,
    /// By how much it has to be more again before all is well.
    pub min_reclaim: Option<ThresholdValue>,
}

impl Threshold {
    /// Whether pods go at once, without their own grace period.
    pub fn is_hard(&self) -> bool {
        self.grace_period.is_zero()
    }

    /// Whether two are the same, whatever is to be reclaimed (`hasThreshold`).
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.grace_period == other.grace_period && self.signal == other.signal && self.value == other.value
    }
}

/// What hard thresholds keep from pods: memory and the node's disk, in bytes (`hardEvictionReservation`).
pub fn hard_reservation(
    thresholds: &[Threshold],
    memory: Quantity,
    storage: Quantity,
) -> (Quantity, Quantity) {
    let hard =
        |signal| thresholds.iter().rfind(|threshold| threshold.signal == signal && threshold.is_hard());
    let of =
        |signal, capacity| hard(signal).map_or(Quantity::ZERO, |threshold| threshold.value.amount(capacity));
    (of(Signal::MemoryAvailable, memory), of(Signal::NodeFsAvailable, storage))
}
