//! Thresholds as the configuration has them (upstream: `ParseThresholdConfig` in `helpers.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::signal::Signal;
use super::threshold::{Threshold, ThresholdValue};
use crate::quantity::Quantity;

/// What the configuration says, by signal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvictionStatements {
    /// `evictionHard`.
    pub hard: BTreeMap<String, String>,
    /// `evictionSoft`.
    pub soft: BTreeMap<String, String>,
    /// `evictionSoftGracePeriod`.
    pub soft_grace_period: BTreeMap<String, Duration>,
    /// `evictionMinimumReclaim`.
    pub minimum_reclaim: BTreeMap<String, String>,
}

/// What cannot be understood of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// No such signal.
    #[error("unsupported eviction signal {0}")]
    UnsupportedSignal(String),
    /// A soft threshold has no grace period.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGracePeriod(Signal),
    /// A share of less than nothing.
    #[error("eviction percentage threshold {0} must be >= 0%: {1}")]
    NegativePercentage(Signal, String),
    /// A share of more than all.
    #[error("eviction percentage threshold {0} must be <= 100%: {1}")]
    LargePercentage(Signal, String),
    /// An amount of nothing or less.
    #[error("eviction threshold {0} must be positive: {1}")]
    NotPositive(Signal, String),
    /// A share to reclaim of nothing or less.
    #[error("eviction percentage minimum reclaim {0} must be positive: {1}")]
    ReclaimNotPositive(Signal, String),
    /// An amount to reclaim of less than nothing.
    #[error("negative eviction minimum reclaim specified for {0}")]
    NegativeReclaim(Signal),
    /// Neither an amount nor a share.
    #[error("{0}: {1:?} is neither a quantity nor a percentage")]
    Unreadable(Signal, String),
}

/// Parses all of it. With `enforces_pods`, what is for pods has the same hard threshold as the node's memory.
pub fn parse_threshold_config(
    statements: &EvictionStatements,
    enforces_pods: bool,
) -> Result<Vec<Threshold>, StatementError> {
    let mut results = parse_thresholds(&statements.hard)?;
    for mut threshold in parse_thresholds(&statements.soft)? {
        let period = statements.soft_grace_period.get(threshold.signal.as_str());
        threshold.grace_period = *period.ok_or(StatementError::NoGracePeriod(threshold.signal))?;
        results.push(threshold);
    }
    for name in statements.soft_grace_period.keys() {
        parse_signal(name)?;
    }
    let reclaims = parse_minimum_reclaims(&statements.minimum_reclaim)?;
    for threshold in &mut results {
        threshold.min_reclaim = reclaims.get(&threshold.signal).copied();
    }
    let memory = results.iter().find(|it| it.signal == Signal::MemoryAvailable && it.is_hard()).copied();
    let of_pods = memory.filter(|_| enforces_pods);
    results.extend(of_pods.map(|it| Threshold { signal: Signal::AllocatableMemoryAvailable, ..it }));
    // What the configuration says of these does not count.
    results.retain(|threshold| !threshold.signal.is_of_container_fs());
    Ok(results)
}

fn parse_signal(name: &str) -> Result<Signal, StatementError> {
    Signal::parse(name).ok_or_else(|| StatementError::UnsupportedSignal(name.to_owned()))
}

fn parse_thresholds(statements: &BTreeMap<String, String>) -> Result<Vec<Threshold>, StatementError> {
    let mut thresholds = Vec::new();
    for (name, text) in statements {
        let signal = parse_signal(name)?;
        // Nothing and everything mean that there is no threshold.
        if text == "0%" || text == "100%" {
            continue;
        }
        let value = parse_value(signal, text)?;
        match value {
            ThresholdValue::Percentage(share) if share < 0.0 => {
                return Err(StatementError::NegativePercentage(signal, text.clone()));
            }
            ThresholdValue::Percentage(share) if share > 1.0 => {
                return Err(StatementError::LargePercentage(signal, text.clone()));
            }
            ThresholdValue::Quantity(amount) if amount <= Quantity::ZERO => {
                return Err(StatementError::NotPositive(signal, text.clone()));
            }
            _ => {}
        }
        thresholds.push(Threshold { signal, value, grace_period: Duration::ZERO, min_reclaim: None });
    }
    Ok(thresholds)
}

fn parse_minimum_reclaims(
    statements: &BTreeMap<String, String>,
) -> Result<BTreeMap<Signal, ThresholdValue>, StatementError> {
    let parse = |(name, text): (&String, &String)| {
        let signal = parse_signal(name)?;
        match parse_value(signal, text)? {
            ThresholdValue::Percentage(share) if share <= 0.0 => {
                Err(StatementError::ReclaimNotPositive(signal, text.clone()))
            }
            ThresholdValue::Quantity(amount) if amount < Quantity::ZERO => {
                Err(StatementError::NegativeReclaim(signal))
            }
            value => Ok((signal, value)),
        }
    };
    statements.iter().map(parse).collect()
}

fn parse_value(signal: Signal, text: &str) -> Result<ThresholdValue, StatementError> {
    let unreadable = || StatementError::Unreadable(signal, text.to_owned());
    match text.strip_suffix('%') {
        Some(number) => {
            let number: f32 = number.parse().ok().filter(|it: &f32| it.is_finite()).ok_or_else(unreadable)?;
            Ok(ThresholdValue::Percentage(number / 100.0))
        }
        None => Quantity::parse(text).map(ThresholdValue::Quantity).map_err(|_| unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn quantity(text: &str) -> ThresholdValue {
        ThresholdValue::Quantity(Quantity::parse(text).unwrap())
    }

    fn hard(signal: Signal, value: ThresholdValue) -> Threshold {
        Threshold { signal, value, grace_period: Duration::ZERO, min_reclaim: None }
    }

    /// `TestParseThresholdConfig`.
    #[test]
    fn thresholds_are_read_as_upstream_reads_them() {
        use Signal::{AllocatableMemoryAvailable, ImageFsAvailable, MemoryAvailable, NodeFsAvailable};
        let statements = EvictionStatements {
            hard: map(&[
                ("memory.available", "150Mi"),
                ("nodefs.available", "10%"),
                ("imagefs.available", "0%"),
            ]),
            soft: map(&[("memory.available", "300Mi"), ("imagefs.available", "20.5%")]),
            soft_grace_period: ["memory.available", "imagefs.available"]
                .map(|name| (name.to_owned(), Duration::from_secs(30)))
                .into(),
            minimum_reclaim: map(&[("memory.available", "0"), ("nodefs.available", "5%")]),
        };
        let zero = Some(quantity("0"));
        let grace_period = Duration::from_secs(30);
        let memory = Threshold { min_reclaim: zero, ..hard(MemoryAvailable, quantity("150Mi")) };
        let expected = [
            memory,
            Threshold {
                min_reclaim: Some(ThresholdValue::Percentage(0.05)),
                ..hard(NodeFsAvailable, ThresholdValue::Percentage(0.1))
            },
            Threshold { grace_period, ..hard(ImageFsAvailable, ThresholdValue::Percentage(0.205)) },
            Threshold { grace_period, min_reclaim: zero, ..hard(MemoryAvailable, quantity("300Mi")) },
        ];
        assert_eq!(parse_threshold_config(&statements, false).unwrap(), expected);
        let with_pods = parse_threshold_config(&statements, true).unwrap();
        assert_eq!(with_pods.last(), Some(&Threshold { signal: AllocatableMemoryAvailable, ..memory }));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let grace = |name: &str| BTreeMap::from([(name.to_owned(), Duration::from_secs(30))]);
        let none = EvictionStatements::default;
        let hard = |name, text| EvictionStatements { hard: map(&[(name, text)]), ..none() };
        let reclaim =
            |text| EvictionStatements { minimum_reclaim: map(&[("nodefs.available", text)]), ..none() };
        let cases = [
            (hard("mem.available", "150Mi"), "unsupported eviction signal mem.available"),
            (
                hard("memory.available", "-150Mi"),
                "eviction threshold memory.available must be positive: -150Mi",
            ),
            (hard("memory.available", "0"), "eviction threshold memory.available must be positive: 0"),
            (
                hard("memory.available", "-15%"),
                "eviction percentage threshold memory.available must be >= 0%: -15%",
            ),
            (
                hard("memory.available", "150%"),
                "eviction percentage threshold memory.available must be <= 100%: 150%",
            ),
            (
                hard("memory.available", "much"),
                "memory.available: \"much\" is neither a quantity nor a percentage",
            ),
            (
                hard("memory.available", "NaN%"),
                "memory.available: \"NaN%\" is neither a quantity nor a percentage",
            ),
            (
                EvictionStatements { soft: map(&[("memory.available", "1Mi")]), ..none() },
                "grace period must be specified for the soft eviction threshold memory.available",
            ),
            (
                EvictionStatements { soft_grace_period: grace("mem"), ..none() },
                "unsupported eviction signal mem",
            ),
            (reclaim("-1Gi"), "negative eviction minimum reclaim specified for nodefs.available"),
            (reclaim("-5%"), "eviction percentage minimum reclaim nodefs.available must be positive: -5%"),
        ];
        for (statements, message) in cases {
            assert_eq!(parse_threshold_config(&statements, true).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_disk_that_containers_write_to_has_no_thresholds_of_its_own() {
        let statements = EvictionStatements {
            hard: map(&[("containerfs.available", "1Gi"), ("containerfs.inodesFree", "5%")]),
            ..EvictionStatements::default()
        };
        assert_eq!(parse_threshold_config(&statements, true).unwrap(), []);
    }
}
