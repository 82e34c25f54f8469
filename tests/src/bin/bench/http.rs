//! `http`: requests to a pod, beside the same guest under `wasmtime serve`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use coracle_tests::process::{self, Process};
use coracle_tests::scratch::Scratch;
use coracle_tests::wait::Deadline;
use coracle_tests::{guests, network, programs};

use crate::fixture::{Fixture, is_ready};
use crate::load::load;
use crate::promise::{Milliseconds, Promise};

const CONNECTIONS: usize = 50;
/// Runs of each of the two, one after the other, so that what else the machine does hits both.
const PAIRS: usize = 5;
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(5);

/// What is compared.
struct Case {
    promise: &'static str,
    guest: &'static str,
    path: &'static str,
    /// Requests for each instance.
    reuse: usize,
    target: f64,
}

const CASES: &[Case] = &[
    Case { promise: "http-fresh-ratio", guest: "http", path: "/quiet", reuse: 1, target: 0.95 },
    Case { promise: "http-compute-ratio", guest: "http", path: "/compute/1000", reuse: 1, target: 0.95 },
    Case { promise: "http-reuse-ratio", guest: "http", path: "/quiet", reuse: 128, target: 1.0 },
    Case { promise: "http-p3-reuse-ratio", guest: "http-p3", path: "/quiet", reuse: 128, target: 1.0 },
];

pub(crate) fn run() -> Result<Vec<Promise>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut fixture = Fixture::new().await?;
        let mut promises = Vec::new();
        for case in CASES {
            promises.push(measure(&mut fixture, case).await?);
        }
        Ok(promises)
    })
}

async fn measure(fixture: &mut Fixture, case: &Case) -> Result<Promise> {
    let reuse = case.reuse.to_string();
    let annotations = [("wasm.coracle.dev/http-reuse-count", reuse.as_str())];
    fixture.create_service(case.promise, case.guest, &annotations).await?;
    let ready = fixture.until(case.promise, |seen| is_ready(&seen.pod)).await?;
    let address = ready.pod.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    let pod = SocketAddr::new(address.parse()?, 8080);
    let peer = Peer::start(case)?;

    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let ours = load(pod, case.path, CONNECTIONS, WARM_UP, TIME).await?;
        let theirs = load(peer.address, case.path, CONNECTIONS, WARM_UP, TIME).await?;
        let ratio = ours.requests_per_second / theirs.requests_per_second;
        println!(
            "  {}: {:.0} req/s p99 {}, wasmtime serve {:.0} req/s p99 {}: {ratio:.3}",
            case.promise,
            ours.requests_per_second,
            Milliseconds(ours.latencies.percentile(99)),
            theirs.requests_per_second,
            Milliseconds(theirs.latencies.percentile(99)),
        );
        ratios.push(ratio);
    }
    fixture.delete(case.promise).await?;
    fixture.until(case.promise, |seen| seen.gone).await?;
    ratios.sort_by(f64::total_cmp);
    Ok(Promise::at_least(case.promise, ratios[PAIRS / 2], case.target))
}

/// `wasmtime serve` of the same version, with the settings that Coracle has: instances from a pool, and a clock that
/// interrupts guests, which costs those that compute and is off there without a time limit.
struct Peer {
    address: SocketAddr,
    _process: Process,
    _scratch: Scratch,
}

impl Peer {
    fn start(case: &Case) -> Result<Self> {
        let scratch = Scratch::new("wasmtime-serve")?;
        let guest = scratch.write("guest.wasm", guests::bytes(case.guest)?)?;
        let address = SocketAddr::from(([127, 0, 0, 1], network::free_port()?));
        let mut command = process::tethered(programs::bed("wasmtime")?);
        command.args(["serve", "-S", "cli", "-O", "pooling-allocator=y", "-W", "timeout=600s"]);
        command.args(["-W", "component-model-async=y", "--no-logging-prefix"]);
        command.args(["--addr", &address.to_string(), "--max-instance-reuse-count", &case.reuse.to_string()]);
        command.arg(guest);
        let mut process = Process::start("wasmtime serve", command, &scratch.join("serve.log"))?;
        let is_up = || std::net::TcpStream::connect(address).is_ok();
        process.await_ready(Deadline::seconds(60), is_up)?;
        Ok(Self { address, _process: process, _scratch: scratch })
    }
}
