//! `sim`: the simulation of the core, and the bugs that it has to find.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::mutant::Mutant;
use crate::{paths, shell};

/// Seeds that a planted bug has to show itself in; sound code holds in all of them.
const MUTANT_SEEDS: &str = "10000";

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    if let [flag, names @ ..] = args
        && flag == "--mutants"
    {
        return mutants(names);
    }
    let simulation = build(&paths::repository(), &paths::cache().join("sim"))?;
    let status = Command::new(&simulation).args(args).status().context("cannot run the simulation")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the simulation of a checkout. Tokio takes the seed of its choices only with a flag of its own, so this is built
/// apart from everything else.
fn build(checkout: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--package", "coracle-sim", "--profile", "sim"]);
    cargo.current_dir(checkout).env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "--cfg tokio_unstable");
    shell::step("building the simulation", || shell::run(&mut cargo))?;
    Ok(target.join("sim/coracle-sim"))
}

/// Plants one bug after the other into a copy of the checkout: those of these names, or all. Each must make some seed fail.
fn mutants(names: &[String]) -> Result<ExitCode> {
    let scratch = paths::cache().join("mutants");
    // With the results of sound code in one folder, cargo would take one for the other.
    let target = paths::cache().join("mutants-target");
    let mut missed = Vec::new();
    let mut mutants = Mutant::all(&paths::repository().join("crates/sim/mutants"))?;
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    if mutants.len() < names.len() {
        bail!("no such mutant among {}", names.join(", "));
    }
    for mutant in mutants {
        let start = Instant::now();
        copy_checkout(&scratch)?;
        mutant.plant(&scratch)?;
        let simulation = build(&scratch, &target).with_context(|| format!("with {}", mutant.name))?;
        let output = Command::new(simulation).args(["--seeds", MUTANT_SEEDS]).output()?;
        let report = String::from_utf8_lossy(&output.stdout);
        let last: Vec<&str> = report.lines().rev().filter(|line| !line.is_empty()).take(2).collect();
        let seconds = start.elapsed().as_secs_f64();
        match (output.status.code(), &last[..]) {
            (Some(1), [seed, violation]) => {
                eprintln!("caught  {} ({}): {violation}; {seed} ({seconds:.0} s)", mutant.name, mutant.what);
            }
            _ => {
                eprintln!("MISSED  {} ({}) ({seconds:.0} s)", mutant.name, mutant.what);
                missed.push(mutant.name);
            }
        }
    }
    fs::remove_dir_all(&scratch)?;
    if !missed.is_empty() {
        bail!("no seed shows these bugs: {}", missed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the copy what the checkout is. What is the same stays as it is, so that it need not be built again.
fn copy_checkout(scratch: &Path) -> Result<()> {
    let checkout = paths::repository();
    let mut list = Command::new("git");
    list.current_dir(&checkout).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    for name in shell::output(&mut list)?.split_terminator('\0') {
        let (from, to) = (checkout.join(name), scratch.join(name));
        // Deleted, and not yet so for git.
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, content).with_context(|| to.display().to_string())?;
    }
    Ok(())
}
