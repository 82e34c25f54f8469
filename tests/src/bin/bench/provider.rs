//! `provider`: the WebAssembly provider by itself, measured by a bench of its crate.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_tests::programs;
use tokio::process::Command;

use crate::promise::{Promise, parse_duration};

/// The line of a step in the bench's report, and what is promised about its median.
const STEP: &str = "all, until its first output";
const TARGET: Duration = Duration::from_millis(1);

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(programs::repository());
    cargo.args([
        "bench",
        "--quiet",
        "--locked",
        "--offline",
        "--package",
        "coracle-wasm",
        "--bench",
        "start",
    ]);
    let output = cargo.kill_on_drop(true).output().await.context("cannot run cargo")?;
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the bench failed: {}", String::from_utf8_lossy(&output.stderr));
    print!("{report}");
    let promise = |name, guest| -> Result<Promise> {
        let median = median(&report, guest).with_context(|| format!("the bench says nothing of {guest}"))?;
        Ok(Promise::at_most(name, median, TARGET))
    };
    Ok(vec![promise("provider-start-p1-p50", "hello")?, promise("provider-start-p2-p50", "hello-p2")?])
}

/// What the report says of the step with this guest.
fn median(report: &str, guest: &str) -> Option<Duration> {
    let mut lines = report.lines().skip_while(|line| !line.starts_with(&format!("{guest}, ")));
    let step = lines.find(|line| line.trim_start().starts_with(STEP))?;
    let mut words = step.split_whitespace().skip_while(|word| *word != "p50");
    parse_duration(words.nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_found_by_guest() {
        let report = "hello, 300 starts
  sandbox                          p50   100.0µs  p99     1.0ms
  all, until its first output      p50   600.5µs  p99     2.0ms
hello-p2, 300 starts
  all, until its first output      p50     1.5ms  p99     2.0ms
";
        assert_eq!(median(report, "hello"), Some(Duration::from_nanos(600_500)));
        assert_eq!(median(report, "hello-p2"), Some(Duration::from_micros(1500)));
        assert_eq!(median(report, "http"), None);
    }
}
