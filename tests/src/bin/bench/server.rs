//! `server`: the kubelet's own API, asked directly by who may do everything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::fixture::{Fixture, is_running};
use crate::node_api::{NodeApi, WebSocket};
use crate::promise::{Milliseconds, Promise, Samples, median};
use crate::tcp::{echo, pod_address};

/// Commands that are run one after another.
const COMMANDS: usize = 200;
const SCRAPES: usize = 50;
const PODS: usize = 1000;
const LOG_READS: usize = 20;
/// Less than what a log is rotated at.
const LOG_BYTES: &str = "8000000";
const PAIRS: usize = 5;
const PIECE: usize = 32 << 10;
/// What is on its way through a forwarded port at once: less than the server holds.
const PIECES: usize = 4;
const FORWARDED: usize = 64 << 20;

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let mut fixture = Fixture::new().await?;
    let api = NodeApi::new(&fixture).await?;
    fixture.create_command("stay", "stay", &[]).await?;
    fixture.until("stay", |seen| is_running(&seen.pod)).await?;
    let commands = commands(&api).await?;
    println!("  a command, from the request to its exit code: {commands}");

    fixture.create_command("flood", "stay", &["flood", LOG_BYTES]).await?;
    fixture.until("flood", |seen| is_running(&seen.pod)).await?;
    println!("  a log is read at {:.0} MB/s", read_log(&api).await?);

    fixture.create_command("pipe", "tcp", &["pipe", "0.0.0.0:7000"]).await?;
    let forwarded = forward(&mut fixture, &api).await?;

    fixture.create_all("idle", PODS).await?;
    let scrapes = scrapes(&api).await?;
    println!("  /metrics/resource with {PODS} pods: {scrapes}");
    Ok(vec![
        Promise::at_most("server-exec-p50", commands.percentile(50), Duration::from_millis(5)),
        Promise::at_most("server-metrics-1000-p50", scrapes.percentile(50), Duration::from_millis(20)),
        Promise::ratio("server-port-forward-ratio", forwarded),
    ])
}

/// A command that does nothing, over a connection that is there already.
async fn commands(api: &NodeApi) -> Result<Samples> {
    const PATH: &str = "/exec/bench/stay/http?command=stay&command=exit&command=0&output=1&error=1";
    let mut times = Vec::new();
    for _ in 0..COMMANDS {
        let connection = api.connect().await?;
        let start = Instant::now();
        let mut session = connection.websocket(PATH, "v5.channel.k8s.io").await?;
        let status = loop {
            match session.message().await?.context("the session ended without a status")? {
                message if message.first() == Some(&3) => break message,
                _ => {}
            }
        };
        times.push(start.elapsed());
        ensure!(status.ends_with(br#"{"status":"Success"}"#), "{}", String::from_utf8_lossy(&status));
    }
    Ok(Samples::new(times))
}

async fn scrapes(api: &NodeApi) -> Result<Samples> {
    let mut connection = api.connect().await?;
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let body = connection.get("/metrics/resource").await?;
        times.push(start.elapsed());
        ensure!(body.len() > PODS * 100, "{} bytes are not of {PODS} pods", body.len());
    }
    Ok(Samples::new(times))
}

/// Megabytes a second.
async fn read_log(api: &NodeApi) -> Result<f64> {
    const PATH: &str = "/containerLogs/bench/flood/http";
    let mut connection = api.connect().await?;
    // The guest may still be writing.
    let mut length = 0;
    loop {
        let now = connection.get(PATH).await?.len();
        if now > 0 && now == length {
            break;
        }
        length = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let start = Instant::now();
    for _ in 0..LOG_READS {
        ensure!(connection.get(PATH).await?.len() == length, "the log has changed");
    }
    Ok((length * LOG_READS) as f64 / start.elapsed().as_secs_f64() / 1e6)
}

/// What comes back through a forwarded port, of what comes back from the pod's address.
async fn forward(fixture: &mut Fixture, api: &NodeApi) -> Result<f64> {
    let pod = pod_address(fixture, "pipe").await?;
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let (forwarded, direct) = (forwarded_echo(api).await?, echo(pod).await?);
        println!("  forwarded {forwarded:.0} MB/s, direct {direct:.0} MB/s");
        ratios.push(forwarded / direct);
    }
    Ok(median(ratios))
}

/// Megabytes a second that come back.
async fn forwarded_echo(api: &NodeApi) -> Result<f64> {
    const PATH: &str = "/portForward/bench/pipe?port=7000";
    let mut session = api.connect().await?.websocket(PATH, "v4.channel.k8s.io").await?;
    // Each channel begins with the port.
    for _ in 0..2 {
        session.message().await?.context("the session ended at once")?;
    }
    let piece = vec![7; PIECE];
    let start = Instant::now();
    for _ in 0..PIECES {
        session.send(0, &piece).await?;
    }
    let (mut back, mut sent) = (0, PIECES * PIECE);
    while back < FORWARDED {
        let message = session.message().await?.context("the session ended")?;
        ensure!(message.first() == Some(&0), "the port failed: {}", String::from_utf8_lossy(&message));
        back += message.len() - 1;
        while sent < back + PIECES * PIECE {
            session.send(0, &piece).await?;
            sent += PIECE;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("  {} MB there and back in {}", FORWARDED >> 20, Milliseconds(start.elapsed()));
    drop::<WebSocket>(session);
    Ok(back as f64 / seconds / 1e6)
}
