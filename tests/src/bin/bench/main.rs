//! Measures what SPECIFICATION.md promises: `cargo xtask bench [NAME…] [--save] [--list]`.

mod burst;
mod cpu;
mod fixture;
mod http;
mod idle;
mod load;
mod node_api;
mod promise;
mod provider;
mod pull;
mod server;
mod start;
mod tcp;
mod wasmtime;

use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use promise::Promise;

/// A measurement that registers here.
struct Bench {
    name: &'static str,
    /// What it runs.
    what: &'static str,
    /// What it is compared with.
    peer: &'static str,
    run: fn() -> LocalBoxFuture<'static, Result<Vec<Promise>>>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "start",
        what: "200 HTTP pods, one after another, created bound to the node with the default service-account token; \
               image cached; from bound to Running and Ready, and from deleted to gone, seen by one watch",
        peer: "the Go kubelet with containerd on a like machine: 672 ms (p50, bound to Running); not run here",
        run: || start::run().boxed_local(),
    },
    Bench {
        name: "burst",
        what: "100 HTTP pods at once, created bound to the node; from the first request to all Running; then 500 on a new \
               node, and where the CPU time goes",
        peer: "the Go kubelet with containerd on a like machine: 38-42 s; not run here",
        run: || burst::run().boxed_local(),
    },
    Bench {
        name: "idle",
        what: "1000 HTTP pods that nobody asks anything; the agent's CPU time and its calls to the apiserver in a minute",
        peer: "none: no other kubelet here runs a thousand pods",
        run: || idle::run().boxed_local(),
    },
    Bench {
        name: "http",
        what: "HTTP/1.1 over 50 connections to a pod's address: a fresh instance for each request, a guest that computes, \
               and instances that are used again, of WASI 0.2 and 0.3; pairs of short runs, the medians of their ratios",
        peer: "wasmtime serve of the same version and with the same settings on 127.0.0.1, run in turn",
        run: || http::run().boxed_local(),
    },
    Bench {
        name: "provider",
        what: "300 commands of a cached image, one after another, at the provider itself: from the call for a sandbox to the \
               first thing that the guest writes",
        peer: "none: containerd takes hundreds of milliseconds",
        run: || provider::run().boxed_local(),
    },
    Bench {
        name: "pull",
        what: "the first pod of an image of 19 MB that holds a Python interpreter, from bound to Ready, and how much of that is \
               compiling",
        peer: "none",
        run: || pull::run().boxed_local(),
    },
    Bench {
        name: "tcp",
        what: "bytes that a guest echoes over one connection to its pod's address; pairs of short runs, the median of their \
               ratios",
        peer: "the same guest under wasmtime run, of the same version and with the same settings, on 127.0.0.1, run in turn",
        run: || tcp::run().boxed_local(),
    },
    Bench {
        name: "server",
        what: "the kubelet's API, asked directly over TLS: 200 commands in a Wasm container, one after another; \
               /metrics/resource with 1000 pods; a log of 8 MB; a forwarded port that echoes",
        peer: "the pod's own address, for the forwarded port; the Go kubelet runs no Wasm pods, and is not run here",
        run: || server::run().boxed_local(),
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

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut promises = Vec::new();
    for bench in chosen {
        describe(bench);
        promises.extend(runtime.block_on((bench.run)())?);
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
