//! `test`: the tiers, one after another, and what became of each.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::{bed, paths, setup, shell, sim};

struct Tier {
    name: &'static str,
    run: fn() -> Result<()>,
    /// Why it can't run on this machine, if so.
    hindrance: fn() -> Option<String>,
}

const TIERS: &[Tier] = &[
    Tier { name: "unit", run: unit, hindrance: || None },
    Tier { name: "simulation", run: simulation, hindrance: || None },
    Tier { name: "contract", run: contract, hindrance: no_namespaces },
    Tier { name: "system", run: system, hindrance: no_namespaces },
];

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

pub(crate) fn run(wanted: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = wanted.iter().find(|name| TIERS.iter().all(|tier| tier.name != name.as_str())) {
        bail!("no tier `{unknown}`: there are unit, simulation, contract and system");
    }
    let chosen = TIERS.iter().filter(|tier| wanted.is_empty() || wanted.iter().any(|name| name == tier.name));
    let results: Vec<_> = chosen.map(|tier| (tier.name, outcome(tier))).collect();
    Ok(summary(&results))
}

fn outcome(tier: &Tier) -> (Outcome, Duration) {
    eprintln!("\n=== {} ===", tier.name);
    let start = Instant::now();
    let outcome = match (tier.hindrance)() {
        Some(reason) => Outcome::Skipped(reason),
        None => (tier.run)().map_or_else(|error| Outcome::Failed(format!("{error:#}")), |()| Outcome::Passed),
    };
    (outcome, start.elapsed())
}

fn summary(results: &[(&str, (Outcome, Duration))]) -> ExitCode {
    eprintln!("\n=== tiers ===");
    let mut good = true;
    for (name, (outcome, time)) in results {
        let word = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
            Outcome::Skipped(why) => format!("SKIPPED, NOTHING WAS TESTED: {why}"),
        };
        eprintln!("{name:>9}  {:>6.1} s  {word}", time.as_secs_f64());
        good &= match outcome {
            Outcome::Passed => true,
            Outcome::Failed(_) => false,
            Outcome::Skipped(_) => !in_ci(),
        };
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In CI every tier must have run.
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// Style, lints, and the tests inside the crates.
fn unit() -> Result<()> {
    let guests = paths::repository().join("tests/guests/Cargo.toml");
    shell::step("formatting", || {
        shell::run(bed::cargo().args(["fmt", "--all", "--check"]))?;
        shell::run(bed::cargo().args(["fmt", "--all", "--check", "--manifest-path"]).arg(guests))
    })?;
    let mut clippy = bed::cargo();
    clippy.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    shell::step("lints", || shell::run(&mut clippy))?;
    shell::step("tests of the crates", || run_tests(crates().args(["--lib", "--bins"])))?;
    shell::step("examples in the documentation", || shell::run(crates().arg("--doc")))
}

/// The core against fakes with faults. So many seeds take a minute and a half on two processors.
fn simulation() -> Result<()> {
    let code = sim::run(&["--seeds".to_owned(), "10000".to_owned()])?;
    ensure!(code == ExitCode::SUCCESS, "a seed failed");
    Ok(())
}

/// Tests of the crates from outside: the suite that every provider must pass, adapters against a real apiserver, who
/// may import whom.
fn contract() -> Result<()> {
    let bed = setup::run()?;
    let mut test = crates();
    bed::isolated(test.args(["--test", "*"])).env("CORACLE_BED", bed);
    shell::step("tests of the crates from outside", || run_tests(&mut test))
}

/// The binary with a real control plane, a real registry and kubectl.
fn system() -> Result<()> {
    let bed = setup::run()?;
    let coracle = bed::coracle(false)?;
    let mut test = bed::cargo();
    test.args(["test", "--locked", "--no-fail-fast", "--package", "coracle-tests", "--tests"]);
    bed::isolated(&mut test).env("CORACLE_BED", bed).env("CORACLE_BIN", coracle);
    shell::step("tests of the system", || run_tests(&mut test))
}

/// In CI a test that hangs is to be told, its name being above, before the machine is taken away. So much is enough to
/// build everything from nothing on two processors.
fn run_tests(cargo: &mut Command) -> Result<()> {
    if in_ci() { shell::run_within(Duration::from_secs(40 * 60), cargo) } else { shell::run(cargo) }
}

fn no_namespaces() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("it needs Linux".into());
    }
    let user = shell::output(Command::new("id").arg("-u")).ok()?;
    (user.trim() != "0").then(|| "it needs root, for network namespaces: run it as root".into())
}

fn crates() -> Command {
    let mut cargo = bed::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast", "--workspace", "--exclude", "coracle-tests"]);
    cargo
}
