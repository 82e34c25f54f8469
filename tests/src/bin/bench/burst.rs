//! `burst`: many pods at once.

use std::time::Duration;

use anyhow::Result;

use crate::cpu;
use crate::fixture::Fixture;
use crate::promise::{Milliseconds, Promise};

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let hundred = measure(100).await?;
    measure(500).await?;
    Ok(vec![Promise::at_most("burst-100-running", hundred, Duration::from_secs(3))])
}

/// How long it takes until so many are Running. Says as well where the CPU time went: on a machine that the control
/// plane shares, that is what limits a large burst.
async fn measure(pods: usize) -> Result<Duration> {
    let mut fixture = Fixture::new().await?;
    let before = costs(&fixture)?;
    let measured = fixture.create_all("burst", pods).await?;
    let after = costs(&fixture)?;
    let [agent, apiserver, etcd] =
        std::array::from_fn(|index| Milliseconds(after[index].saturating_sub(before[index])));
    println!(
        "  {pods} pods: {}, {:.0} a second; CPU time of the agent {agent}, of the apiserver {apiserver}, of etcd {etcd}",
        Milliseconds(measured),
        pods as f64 / measured.as_secs_f64(),
    );
    Ok(measured)
}

/// The CPU time of the agent, the apiserver and etcd so far.
fn costs(fixture: &Fixture) -> Result<[Duration; 3]> {
    let [apiserver, etcd] = fixture.control_plane().apiserver_ids();
    Ok([cpu::time(fixture.node().id())?, cpu::time(apiserver)?, cpu::time(etcd)?])
}
