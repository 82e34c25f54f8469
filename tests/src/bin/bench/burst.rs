//! `burst`: many pods at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use crate::fixture::{Fixture, is_running};
use crate::promise::{Milliseconds, Promise};

const PODS: usize = 100;

pub(crate) fn run() -> Result<Vec<Promise>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(measure())?;
    println!("  {PODS} pods: {}", Milliseconds(measured));
    Ok(vec![Promise { name: "burst-100-running", measured, target: Duration::from_secs(3) }])
}

async fn measure() -> Result<Duration> {
    let mut fixture = Fixture::new().await?;
    let names: Vec<String> = (0..PODS).map(|number| format!("burst-{number}")).collect();
    let start = Instant::now();
    try_join_all(names.iter().map(|name| fixture.create(name))).await?;
    let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut last = start;
    while !waiting.is_empty() {
        let seen = fixture.next().await?;
        if is_running(&seen.pod) && waiting.remove(seen.pod.metadata.name.as_deref().unwrap_or_default()) {
            last = seen.at;
        }
    }
    Ok(last - start)
}
