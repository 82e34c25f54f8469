//! A number that was promised, and what it is.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use coracle_tests::programs;

/// A number that was measured, and what it has to be, if that was promised.
pub(crate) struct Promise {
    name: &'static str,
    measured: Figure,
    target: Option<Figure>,
}

#[derive(Clone, Copy)]
enum Figure {
    /// Not longer than promised.
    Duration(Duration),
    /// Not smaller than promised.
    Ratio(f64),
}

impl Promise {
    /// A duration that must not be longer than promised.
    pub(crate) fn at_most(name: &'static str, measured: Duration, target: Duration) -> Self {
        Self { name, measured: Figure::Duration(measured), target: Some(Figure::Duration(target)) }
    }

    /// A ratio to a peer that must not be smaller than promised.
    pub(crate) fn at_least(name: &'static str, measured: f64, target: f64) -> Self {
        Self { name, measured: Figure::Ratio(measured), target: Some(Figure::Ratio(target)) }
    }

    /// A duration that is worth knowing, of which nothing was promised.
    pub(crate) fn took(name: &'static str, measured: Duration) -> Self {
        Self { name, measured: Figure::Duration(measured), target: None }
    }

    /// A ratio that is worth knowing, of which nothing was promised.
    pub(crate) fn ratio(name: &'static str, measured: f64) -> Self {
        Self { name, measured: Figure::Ratio(measured), target: None }
    }

    pub(crate) fn holds(&self) -> bool {
        match (self.measured, self.target) {
            (_, None) => true,
            (Figure::Duration(measured), Some(Figure::Duration(target))) => measured <= target,
            (Figure::Ratio(measured), Some(Figure::Ratio(target))) => measured >= target,
            _ => false,
        }
    }

    fn target(&self) -> String {
        self.target.map_or_else(|| "-".to_owned(), |target| target.to_string())
    }

    fn word(&self) -> &'static str {
        match self.target {
            None => "reported",
            Some(_) if self.holds() => "ok",
            Some(_) => "short",
        }
    }

    fn row(&self, command: &str) -> String {
        let Self { name, measured, .. } = self;
        format!("| {name} | {measured} | {} | {} | `{command}` |", self.target(), self.word())
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, measured, .. } = self;
        write!(f, "promise {name} measured={measured} target={} {}", self.target(), self.word())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(duration) => Milliseconds(*duration).fmt(f),
            Self::Ratio(ratio) => write!(f, "{ratio:.3}x"),
        }
    }
}

/// A duration as reports show it.
pub(crate) struct Milliseconds(pub(crate) Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1e3)
    }
}

/// The ratio in the middle.
pub(crate) fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or_default()
}

/// A duration as Rust shows it: `1.5s`, `12ms`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
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
    fn durations_are_read_as_rust_shows_them() {
        for duration in [1_234_567_890, 12_300_000, 456_789, 12].map(Duration::from_nanos) {
            assert_eq!(parse_duration(&format!("{duration:?}")), Some(duration));
        }
        assert_eq!(["", "5", "5 h", "s"].map(parse_duration), [None; 4]);
    }

    #[test]
    fn a_promise_is_short_when_it_takes_longer_or_the_ratio_is_smaller() {
        let start = |measured| {
            Promise::at_most("start", Duration::from_micros(measured), Duration::from_millis(10)).to_string()
        };
        assert_eq!(start(10_000), "promise start measured=10.0ms target=10.0ms ok");
        assert!(start(10_001).ends_with(" short"));
        let http = |measured| Promise::at_least("http", measured, 0.95).to_string();
        assert_eq!(http(0.95), "promise http measured=0.950x target=0.950x ok");
        assert!(http(0.9499).ends_with(" short"));
        let pull = Promise::took("pull", Duration::from_secs(3));
        assert_eq!(
            (pull.to_string().as_str(), pull.holds()),
            ("promise pull measured=3000.0ms target=- reported", true)
        );
    }
}
