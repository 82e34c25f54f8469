//! `http`: requests to a pod, beside the same guest under `wasmtime serve`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::fixture::{Fixture, is_ready};
use crate::load::{Load, load};
use crate::promise::{Milliseconds, Promise, median};
use crate::wasmtime::Peer;

const CONNECTIONS: usize = 50;
/// Runs of each of the two, one after the other, so that what else the machine does hits both.
const PAIRS: usize = 15;
const WARM_UP: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_secs(2);

/// What is compared.
struct Case {
    pod: &'static str,
    /// The promises about requests per second and about the latency that 99 % stay below.
    promises: [&'static str; 2],
    guest: &'static str,
    path: &'static str,
    /// Requests for each instance.
    reuse: usize,
    target: f64,
}

const CASES: &[Case] = &[
    Case {
        pod: "fresh",
        promises: ["http-fresh-ratio", "http-fresh-p99-ratio"],
        guest: "http",
        path: "/quiet",
        reuse: 1,
        target: 0.95,
    },
    Case {
        pod: "compute",
        promises: ["http-compute-ratio", "http-compute-p99-ratio"],
        guest: "http",
        path: "/compute/1000",
        reuse: 1,
        target: 0.95,
    },
    Case {
        pod: "reuse",
        promises: ["http-reuse-ratio", "http-reuse-p99-ratio"],
        guest: "http",
        path: "/quiet",
        reuse: 128,
        target: 1.0,
    },
    Case {
        pod: "p3-reuse",
        promises: ["http-p3-reuse-ratio", "http-p3-reuse-p99-ratio"],
        guest: "http-p3",
        path: "/quiet",
        reuse: 128,
        target: 1.0,
    },
];

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let mut fixture = Fixture::new().await?;
    let mut promises = Vec::new();
    for case in CASES {
        promises.extend(measure(&mut fixture, case).await?);
    }
    Ok(promises)
}

async fn measure(fixture: &mut Fixture, case: &Case) -> Result<[Promise; 2]> {
    let reuse = case.reuse.to_string();
    let annotations = [("wasm.coracle.dev/http-reuse-count", reuse.as_str())];
    fixture.create_service(case.pod, case.guest, &annotations).await?;
    let ready = fixture.until(case.pod, |seen| is_ready(&seen.pod)).await?;
    let address = ready.pod.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    let pod = SocketAddr::new(address.parse()?, 8080);
    let peer = Peer::serve(case.guest, case.reuse)?;

    let (mut rates, mut latencies) = (Vec::new(), Vec::new());
    let ask = |server| load(server, case.path, CONNECTIONS, WARM_UP, TIME);
    for pair in 0..PAIRS {
        // Who goes first changes, too.
        let (ours, theirs) = if pair % 2 == 0 {
            let ours = ask(pod).await?;
            (ours, ask(peer.address).await?)
        } else {
            let theirs = ask(peer.address).await?;
            (ask(pod).await?, theirs)
        };
        let rate = ours.requests_per_second / theirs.requests_per_second;
        let latency = p99(&theirs).as_secs_f64() / p99(&ours).as_secs_f64();
        println!(
            "  {}: {:.0} req/s p99 {}, wasmtime serve {:.0} req/s p99 {}: {rate:.3}, {latency:.3}",
            case.pod,
            ours.requests_per_second,
            Milliseconds(p99(&ours)),
            theirs.requests_per_second,
            Milliseconds(p99(&theirs)),
        );
        rates.push(rate);
        latencies.push(latency);
    }
    fixture.delete(case.pod).await?;
    fixture.until(case.pod, |seen| seen.gone).await?;
    let [rate, latency] = case.promises;
    Ok([
        Promise::at_least(rate, median(rates), case.target),
        Promise::at_least(latency, median(latencies), case.target),
    ])
}

fn p99(load: &Load) -> Duration {
    load.latencies.percentile(99)
}
