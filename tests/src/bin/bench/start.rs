//! `start`: one pod after another.

use std::time::Duration;

use anyhow::Result;

use crate::fixture::{Fixture, is_ready, is_running};
use crate::promise::{Promise, Samples};

const PODS: usize = 200;

#[derive(Default)]
struct Times {
    running: Vec<Duration>,
    ready: Vec<Duration>,
    gone: Vec<Duration>,
}

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let times = measure().await?;
    let (running, ready) = (Samples::new(times.running), Samples::new(times.ready));
    let gone = Samples::new(times.gone);
    println!("  bound to Running: {running}\n  bound to Ready:   {ready}\n  deleted to gone:  {gone}");
    let promise = |name, measured, target| Promise::at_most(name, measured, Duration::from_millis(target));
    Ok(vec![
        promise("start-running-p50", running.percentile(50), 10),
        promise("start-running-p99", running.percentile(99), 50),
        promise("start-ready-p50", ready.percentile(50), 10),
        promise("start-ready-p99", ready.percentile(99), 50),
        promise("delete-gone-p50", gone.percentile(50), 15),
    ])
}

/// A pod counts as bound at the earlier of the create's answer and the watch's first sight of it, so that a bench
/// that reads its watch late can't flatter the agent.
async fn measure() -> Result<Times> {
    let mut fixture = Fixture::new().await?;
    let mut times = Times::default();
    for number in 0..PODS {
        let name = format!("start-{number}");
        let answered = fixture.create(&name).await?;
        let mut seen = fixture.until(&name, |_| true).await?;
        let bound = answered.min(seen.at);
        while !is_running(&seen.pod) {
            seen = fixture.until(&name, |_| true).await?;
        }
        times.running.push(seen.at - bound);
        while !is_ready(&seen.pod) {
            seen = fixture.until(&name, |_| true).await?;
        }
        times.ready.push(seen.at - bound);

        let answered = fixture.delete(&name).await?;
        let marked =
            fixture.until(&name, |seen| seen.gone || seen.pod.metadata.deletion_timestamp.is_some()).await?;
        let deleted = answered.min(marked.at);
        let gone = if marked.gone { marked } else { fixture.until(&name, |seen| seen.gone).await? };
        times.gone.push(gone.at - deleted);
    }
    Ok(times)
}
