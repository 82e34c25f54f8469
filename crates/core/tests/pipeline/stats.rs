//! What pods use, as the kubelet's API asks for it.

use std::time::Duration;

use coracle_core::host::HostInterface as _;
use coracle_core::stats::UsageScope;
use tokio::time::advance;

use crate::world::{World, one};

#[tokio::test(start_paused = true)]
async fn volumes_are_measured_when_somebody_asks_and_once_in_a_period() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    let volumes = async |scope| {
        let usage = world.kubelet().pods_usage(scope).await;
        usage.pods[0].volumes.iter().map(|volume| volume.volume.clone()).collect::<Vec<_>>()
    };
    let measured = || world.api.measured_pods.lock().len();
    assert!(volumes(UsageScope::CpuAndMemory).await.is_empty());
    assert_eq!(measured(), 0, "nobody asked for them");
    assert_eq!(volumes(UsageScope::Everything).await, ["data"]);
    assert_eq!(volumes(UsageScope::Everything).await, ["data"]);
    assert_eq!(measured(), 1);
    advance(Duration::from_secs(61)).await;
    assert_eq!(volumes(UsageScope::Everything).await, ["data"]);
    assert_eq!(measured(), 2);
}
