//! `idle`: a full node that has nothing to do.

use std::time::Duration;

use anyhow::Result;
use coracle_tests::audit;

use crate::cpu;
use crate::fixture::Fixture;
use crate::promise::{Milliseconds, Promise};

const PODS: usize = 1000;
/// What starting leaves to be done (events, the first probes of the apiserver's watches) is not idling.
const SETTLE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// 3 % of one core.
const TARGET: Duration = Duration::from_millis(1800);

pub(crate) async fn run() -> Result<Vec<Promise>> {
    Ok(vec![Promise::at_most("idle-1000-cpu-a-minute", measure().await?, TARGET)])
}

async fn measure() -> Result<Duration> {
    let mut fixture = Fixture::new().await?;
    let agent = fixture.node().id();
    let empty = cpu::resident(agent)?;
    fixture.create_all("idle", PODS).await?;
    tokio::time::sleep(SETTLE).await;
    println!("  resident: {} KiB a pod", cpu::resident(agent)?.saturating_sub(empty) / PODS as u64);

    let (asked, used) = (fixture.calls()?.len(), cpu::time(agent)?);
    tokio::time::sleep(MINUTE).await;
    let used = cpu::time(agent)?.saturating_sub(used);
    let calls = audit::tally(&fixture.calls()?.split_off(asked));
    println!("  {PODS} HTTP pods for a minute: {} of CPU time, calls {calls:?}", Milliseconds(used));
    Ok(used)
}
