//! `tcp`: bytes through a guest and back, beside the same guest under `wasmtime run`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use coracle_tests::wait::{self, Deadline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::fixture::{Fixture, is_running};
use crate::promise::{Promise, median};
use crate::wasmtime::Peer;

const PAIRS: usize = 15;
const WARM_UP: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_secs(2);
const PIECE: usize = 64 << 10;
const PORT: u16 = 7000;

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let mut fixture = Fixture::new().await?;
    fixture.create_command("pipe", "tcp", &["pipe", &format!("0.0.0.0:{PORT}")]).await?;
    let pod = pod_address(&mut fixture, "pipe").await?;
    let peer = Peer::run("tcp", &["pipe"])?;

    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        let (ours, theirs) = if pair % 2 == 0 {
            let ours = echo(pod).await?;
            (ours, echo(peer.address).await?)
        } else {
            let theirs = echo(peer.address).await?;
            (echo(pod).await?, theirs)
        };
        println!("  {ours:.0} MB/s, wasmtime run {theirs:.0} MB/s: {:.3}", ours / theirs);
        ratios.push(ours / theirs);
    }
    Ok(vec![Promise::ratio("tcp-echo-ratio", median(ratios))])
}

/// Where a pod listens that was just created, once it does.
pub(crate) async fn pod_address(fixture: &mut Fixture, name: &str) -> Result<SocketAddr> {
    let running = fixture.until(name, |seen| is_running(&seen.pod)).await?;
    let address = running.pod.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    let pod = SocketAddr::new(address.parse()?, PORT);
    wait::eventually("the guest listens", Deadline::seconds(30), || Ok(std::net::TcpStream::connect(pod)?))?;
    Ok(pod)
}

/// How many megabytes come back in a second over one connection that is kept full.
pub(crate) async fn echo(server: SocketAddr) -> Result<f64> {
    let (mut answers, mut requests) = TcpStream::connect(server).await?.into_split();
    let sender = tokio::spawn(async move {
        let piece = vec![7; PIECE];
        while requests.write_all(&piece).await.is_ok() {}
    });
    let _sender = AbortOnDrop(sender.abort_handle());
    let (mut buffer, mut bytes) = (vec![0; PIECE], 0);
    let begin = Instant::now() + WARM_UP;
    loop {
        let length = answers.read(&mut buffer).await?;
        ensure!(length > 0, "the guest closed the connection");
        let now = Instant::now();
        if now >= begin + TIME {
            return Ok(bytes as f64 / TIME.as_secs_f64() / 1e6);
        }
        if now >= begin {
            bytes += length;
        }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
