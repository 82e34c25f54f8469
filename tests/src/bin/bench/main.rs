//! Measures what SPECIFICATION.md promises: `cargo xtask bench [NAME…] [--save] [--list]`.

mod burst;
mod cpu;
mod fixture;
mod http;
mod idle;
mod load;
mod promise;
mod start;

use std::process::ExitCode;

use anyhow::{Result, bail};

use promise::Promise;

/// A measurement that registers here.
struct Bench {
    name: &'static str,
    /// What it runs.
    what: &'static str,
    /// What it is compared with.
    peer: &'static str,
    run: fn() -> Result<Vec<Promise>>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "start",
        what: "200 HTTP pods, one after another, created bound to the node with the default service-account token; \
               image cached; from bound to Running and Ready, and from deleted to gone, seen by one watch",
        peer: "the Go kubelet with containerd on a like machine: 672 ms (p50, bound to Running); not run here",
        run: start::run,
    },
    Bench {
        name: "burst",
        what: "100 HTTP pods at once, created bound to the node; from the first request to all Running; then 500 on a new \
               node, and where the CPU time goes",
        peer: "the Go kubelet with containerd on a like machine: 38-42 s; not run here",
        run: burst::run,
    },
    Bench {
        name: "idle",
        what: "1000 HTTP pods that nobody asks anything; the agent's CPU time and its calls to the apiserver in a minute",
        peer: "none: no other kubelet here runs a thousand pods",
        run: idle::run,
    },
    Bench {
        name: "http",
        what: "HTTP/1.1 over 50 connections to a pod's address: a fresh instance for each request, a guest that computes, \
               and instances that are used again, of WASI 0.2 and 0.3; five pairs of runs of five seconds, the median of \
               their ratios",
        peer: "wasmtime serve of the same version and with the same settings on 127.0.0.1, run in turn",
        run: http::run,
    },
];

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with("--"));
    if let Some(flag) = flags.iter().find(|flag| !matches!(flag.as_str(), "--save" | "--list")) {
        bail!("unknown flag {flag}");
    }
    if let Some(name) = names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != name.as_str())) {
        bail!("no bench `{name}`: see --list");
    }
    let chosen =
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|name| *name == bench.name));
    if flags.iter().any(|flag| *flag == "--list") {
        chosen.for_each(describe);
        return Ok(ExitCode::SUCCESS);
    }

    let mut promises = Vec::new();
    for bench in chosen {
        describe(bench);
        promises.extend((bench.run)()?);
    }
    promises.iter().for_each(|promise| println!("{promise}"));
    if flags.iter().any(|flag| *flag == "--save") {
        promise::save(&promises, &format!("cargo xtask bench {}", args.join(" ")))?;
    }
    Ok(if promises.iter().all(Promise::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(bench: &Bench) {
    println!("{}: {}\n  peer: {}", bench.name, bench.what, bench.peer);
}
