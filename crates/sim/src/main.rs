//! The simulation: the whole core against two providers, an apiserver, volumes and a network that fail, under a clock
//! that jumps from event to event. `cargo xtask sim` builds and runs it.
//!
//! A seed decides everything, so that a run can be repeated. What must hold is checked at every step (`checker.rs`) and
//! against the truth in the end (`truth.rs`).

mod api;
mod checker;
mod dice;
mod faults;
mod history;
mod lives;
mod manifests;
mod network;
mod pods;
mod provider;
mod scenario;
mod truth;
mod volumes;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use scenario::Outcome;

const USAGE: &str = "usage: sim [--seeds N] [--first SEED] [--survey] | sim --seed SEED [--trace]";
/// Seeds that are run twice, to see that they are repeated to the letter.
const REPEATED: u64 = 4;

/// What to run.
struct Plan {
    first: u64,
    seeds: u64,
    /// The whole history of the one seed.
    trace: bool,
    /// Goes on after a seed that failed, and lists all in the end.
    survey: bool,
}

fn main() -> ExitCode {
    if !cfg!(tokio_unstable) {
        eprintln!(
            "sim: built without `--cfg tokio_unstable`, seeds cannot be repeated: use `cargo xtask sim`"
        );
        return ExitCode::FAILURE;
    }
    let Some(plan) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    scenario::watch_panics();
    match run(&plan) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan { first: 0, seeds: 1000, trace: false, survey: false };
    while let Some(flag) = args.next() {
        if flag == "--trace" {
            plan.trace = true;
            continue;
        }
        if flag == "--survey" {
            plan.survey = true;
            continue;
        }
        let value = args.next()?.parse().ok()?;
        match flag.as_str() {
            "--seeds" => plan.seeds = value,
            "--first" => plan.first = value,
            "--seed" => (plan.first, plan.seeds) = (value, 1),
            _ => return None,
        }
    }
    Some(plan)
}

/// Sums of all seeds.
#[derive(Default)]
struct Sums {
    facts: usize,
    simulated: Duration,
    failed: Option<(u64, String)>,
    /// With `--survey`: every seed that failed, by the rule that it broke.
    broken: BTreeMap<&'static str, BTreeMap<u64, String>>,
    error: Option<std::io::Error>,
}

/// Runs the seeds, one after the other on each processor, until one fails.
fn run(plan: &Plan) -> std::io::Result<ExitCode> {
    let (start, next, stop) = (Instant::now(), AtomicU64::new(plan.first), AtomicBool::new(false));
    let sums = Mutex::new(Sums::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= plan.first + plan.seeds {
                return;
            }
            let outcome = one(plan, seed);
            let mut sums = sums.lock();
            sums.add(seed, outcome);
            if (sums.failed.is_some() && !plan.survey) || sums.error.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let sums = sums.into_inner();
    if let Some(error) = sums.error {
        return Err(error);
    }
    if plan.survey {
        for (seed, violation) in sums.broken.values().flatten() {
            println!("seed {seed}: {violation}");
        }
    }
    if let Some((seed, report)) = sums.failed {
        println!("{report}\n\nseed {seed} failed; again: cargo xtask sim --seed {seed}");
        return Ok(ExitCode::FAILURE);
    }
    let took = start.elapsed();
    println!(
        "{} seeds hold: {} facts, {:.0} h of pods' lives in {:.1} s",
        plan.seeds,
        sums.facts,
        sums.simulated.as_secs_f64() / 3600.0,
        took.as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

fn one(plan: &Plan, seed: u64) -> std::io::Result<Outcome> {
    let mut outcome = scenario::run(seed, plan.trace)?;
    if seed < plan.first + REPEATED && outcome.violation.is_none() {
        let again = scenario::run(seed, plan.trace)?;
        if again.digest != outcome.digest {
            let message = "the same seed gave two histories".to_owned();
            let rule = "a seed can be repeated";
            outcome.violation = Some(checker::Violation { rule, uid: String::new(), message });
        }
    }
    if plan.trace {
        println!("{}", outcome.trace);
    }
    Ok(outcome)
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: std::io::Result<Outcome>) {
        match outcome {
            Ok(outcome) => {
                self.facts += outcome.facts;
                self.simulated += outcome.simulated;
                if let Some(violation) = outcome.violation {
                    let text = violation.to_string();
                    self.broken.entry(violation.rule).or_default().insert(seed, text);
                    let report = format!("{}\n\n{violation}", outcome.trace);
                    if self.failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                        self.failed = Some((seed, report));
                    }
                }
            }
            Err(error) => self.error = Some(error),
        }
    }
}
