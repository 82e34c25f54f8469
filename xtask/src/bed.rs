//! `cluster` and `bench`: programs of the tests crate, run on the bed that `setup` made.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{paths, setup, shell};

/// `cargo` with the place where it builds.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::repository()).env("CARGO_TARGET_DIR", paths::target());
    cargo
}

/// Builds the binary and gives its path.
pub(crate) fn coracle(release: bool) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "coracle", "--bin", "coracle"]);
    if release {
        build.arg("--release");
    }
    shell::step("building coracle", || shell::run(&mut build))?;
    Ok(paths::target().join(if release { "release" } else { "debug" }).join("coracle"))
}

/// Has cargo run programs in namespaces of their own: nothing leaves the machine, nothing stays behind.
pub(crate) fn isolated(cargo: &mut Command) -> &mut Command {
    let script = paths::repository().join("tests/isolate");
    cargo.arg("--config").arg(format!("target.'cfg(unix)'.runner = '{}'", script.display()))
}

pub(crate) fn cluster(args: &[String]) -> Result<ExitCode> {
    let release = match args {
        [] => false,
        [flag] if flag == "--release" => true,
        _ => bail!("usage: cargo xtask cluster [--release]"),
    };
    let bed = setup::run()?;
    let coracle = coracle(release)?;
    let mut run = cargo();
    run.args(["run", "--quiet", "--locked", "--package", "coracle-tests", "--bin", "cluster"]);
    Err(run.env("CORACLE_BED", bed).env("CORACLE_BIN", coracle).exec()).context("cannot run cargo")
}

pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    let mut run = cargo();
    run.args(["run", "--quiet", "--locked", "--release", "--package", "coracle-tests", "--bin", "bench"]);
    if !args.iter().any(|arg| arg == "--list") {
        let bed = setup::run()?;
        let all = args.iter().all(|arg| arg.starts_with("--"));
        let wants = |names: &[&str]| all || args.iter().any(|arg| names.contains(&arg.as_str()));
        if wants(&["http", "tcp"]) {
            setup::wasmtime(&bed)?;
        }
        if wants(&["provider"]) {
            let mut bench = cargo();
            bench.args(["bench", "--locked", "--package", "coracle-wasm", "--bench", "start", "--no-run"]);
            shell::step("building the provider's bench", || shell::run(&mut bench))?;
        }
        let coracle = coracle(true)?;
        isolated(&mut run).env("CORACLE_BED", bed).env("CORACLE_BIN", coracle);
    }
    Err(run.arg("--").args(args).exec()).context("cannot run cargo")
}
