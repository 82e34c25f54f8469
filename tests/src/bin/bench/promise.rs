//! A number that was promised, and what it is.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use coracle_tests::programs;

/// A duration that must not be longer than promised.
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) measured: Duration,
    pub(crate) target: Duration,
}

impl Promise {
    pub(crate) fn holds(&self) -> bool {
        self.measured <= self.target
    }

    fn word(&self) -> &'static str {
        if self.holds() { "ok" } else { "short" }
    }

    fn row(&self, command: &str) -> String {
        let (measured, target) = (Milliseconds(self.measured), Milliseconds(self.target));
        format!("| {} | {measured} | {target} | {} | `{command}` |", self.name, self.word())
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, target) = (Milliseconds(self.measured), Milliseconds(self.target));
        write!(f, "promise {} measured={measured} target={target} {}", self.name, self.word())
    }
}

/// A duration as reports show it.
pub(crate) struct Milliseconds(pub(crate) Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1e3)
    }
}

/// A set of measured durations.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    /// The smallest sample that so many percent are not above.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |percent| Milliseconds(self.percentile(percent));
        write!(
            f,
            "n={} min={} p50={} p90={} p99={} max={}",
            self.0.len(),
            show(0),
            show(50),
            show(90),
            show(99),
            show(100)
        )
    }
}

const TABLE: &str = "| promise | measured | target | | command |\n|---|---|---|---|---|\n";

/// Puts promises into the table of docs/benchmarks.md; rows of others stay, and so does the text around it.
pub(crate) fn save(promises: &[Promise], command: &str) -> Result<()> {
    let path = file();
    let old = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{TABLE}"));
    let (before, after) = old.split_once(TABLE).with_context(|| format!("no table in {}", path.display()))?;
    let end =
        after.lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum::<usize>();
    let (rows, rest) = after.split_at(end.min(after.len()));
    let is_new =
        |row: &&str| promises.iter().any(|promise| row.starts_with(&format!("| {} |", promise.name)));
    let mut rows: Vec<String> = rows.lines().filter(|row| !is_new(row)).map(str::to_owned).collect();
    rows.extend(promises.iter().map(|promise| promise.row(command.trim())));
    rows.sort();
    fs::write(&path, format!("{before}{TABLE}{}\n{rest}", rows.join("\n")))
        .with_context(|| path.display().to_string())
}

fn file() -> PathBuf {
    programs::repository().join("docs/benchmarks.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = Samples::new((1..=200).rev().map(Duration::from_millis).collect());
        let milliseconds = |percent| samples.percentile(percent).as_millis();
        assert_eq!([0, 50, 99, 100].map(milliseconds), [1, 100, 198, 200]);
        assert_eq!(Samples::new(Vec::new()).percentile(50), Duration::ZERO);
    }

    #[test]
    fn a_promise_is_short_when_it_takes_longer() {
        let promise = |measured| Promise {
            name: "start",
            measured: Duration::from_micros(measured),
            target: Duration::from_millis(10),
        };
        assert_eq!(promise(10_000).to_string(), "promise start measured=10.0ms target=10.0ms ok");
        assert!(promise(10_001).to_string().ends_with(" short"));
    }
}
