//! Development tasks, one file a command: `cargo xtask --help`.

mod apt;
mod bed;
mod checkout;
mod guests;
mod mutant;
mod paths;
mod setup;
mod shell;
mod sim;
mod test;

use std::process::ExitCode;

use anyhow::Result;

const HELP: &str = "\
Development tasks of Coracle.

  cargo xtask setup               get what the system tests need: a control plane, a registry and large guests
  cargo xtask test [TIER…]        run tests; tiers: unit, simulation, contract, system (default: all)
  cargo xtask sim [--seeds N] [--first SEED] [--survey] | --seed SEED [--trace] | --mutants
                                  simulate the core, many seeds or one; or show that it finds planted bugs
  cargo xtask cluster [--release] run a local cluster with one Coracle node, until Ctrl-C
  cargo xtask bench [NAME…] [--save] [--list]
                                  measure what SPECIFICATION.md promises, against its peers
  cargo xtask guests [NAME…]      rebuild the guest modules that the repository holds

Results of builds go to $CARGO_TARGET_DIR, else to a folder in the cache; the control plane is kept in the cache too
(${XDG_CACHE_HOME:-~/.cache}/coracle). KUBEBUILDER_ASSETS, if set, provides etcd, kube-apiserver and kubectl.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        eprintln!("{HELP}");
        return ExitCode::from(64);
    };
    match run(command, rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, rest: &[String]) -> Result<ExitCode> {
    match command {
        "setup" => setup::run().map(|_| ExitCode::SUCCESS),
        "test" => checkout::claim_target().and_then(|()| test::run(rest)),
        "sim" => sim::run(rest),
        "cluster" => checkout::claim_target().and_then(|()| bed::cluster(rest)),
        "bench" => checkout::claim_target().and_then(|()| bed::bench(rest)),
        "guests" => guests::run(rest).map(|()| ExitCode::SUCCESS),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("unknown command `{command}`\n\n{HELP}");
            Ok(ExitCode::from(64))
        }
    }
}
