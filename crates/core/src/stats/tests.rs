use std::time::Duration;

use coracle_provider::fake::{Call, FakeProvider};
use coracle_provider::{ContainerConfig, ContainerState, Error, PodRef, RuntimeService, SandboxConfig};
use jiff::Timestamp;

use super::*;
use crate::providers::RegisteredProvider;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

#[test]
fn rates_are_taken_between_readings_that_are_far_enough_apart() {
    let rates = UsageRates::default();
    assert_eq!(rates.note("a", at(0), 0), None);
    assert_eq!(rates.note("a", at(10_000), 5_000_000_000), Some(500_000_000));
    assert_eq!(rates.note("a", at(10_500), 5_500_000_000), Some(500_000_000), "too soon for another");
    assert_eq!(rates.note("a", at(20_000), 5_000_000_000), Some(0));
    assert_eq!(rates.note("a", at(19_000), 1), Some(0), "a clock that goes back changes nothing");
    assert_eq!(rates.note("a", at(30_000), 0), Some(0), "nor does time that is given back");
    rates.retain(|id| id != "a");
    assert_eq!(rates.note("a", at(40_000), 7), None);
}

#[test]
fn the_logs_of_a_container_are_counted_with_their_rotated_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::write(folder.path().join(name), [b'x'; 5000]).unwrap();
    for name in ["1.log", "1.log.20261101-120000", "1.log.20261101-110000.gz", "0.log", "other"] {
        write(name);
    }
    let stats = disk::log_files(&folder.path().join("1.log")).unwrap();
    assert_eq!(stats.inodes_used, 3);
    assert!(stats.used_bytes >= 3 * 5000, "{stats:?}");
    assert!(disk::log_files(&folder.path().join("none/1.log")).is_err());
}

/// A provider with a running pod of this name, and the cache that knows it.
async fn running(name: &'static str, cache: &PodCache) -> (Arc<FakeProvider>, RegisteredProvider) {
    let provider = FakeProvider::new(name, Timestamp::now);
    let pod = PodRef { uid: format!("uid-{name}"), namespace: "ns".to_owned(), name: format!("pod-{name}") };
    let sandbox = provider.run_sandbox(SandboxConfig { pod, ..SandboxConfig::default() }).await.unwrap();
    for (container, runs) in [("main", true), ("not-started", false)] {
        let config = ContainerConfig { name: container.to_owned(), ..ContainerConfig::default() };
        let made = provider.create_container(&sandbox.id, config).await.unwrap();
        if runs {
            provider.start_container(&made.id).await.unwrap();
        }
    }
    cache.replace_all(name, provider.list().await.unwrap());
    let registered = RegisteredProvider {
        provider: provider.clone(),
        handlers: Vec::new(),
        relist_period: Duration::from_secs(1),
    };
    (provider, registered)
}

#[tokio::test]
async fn what_runs_is_told_and_one_provider_that_fails_hides_no_others() {
    let cache = Arc::new(PodCache::default());
    let ((_, good), (fake, bad)) = (running("good", &cache).await, running("bad", &cache).await);
    let stats = StatsProvider::new(Providers::new(vec![bad, good]), cache.clone());
    let usage = stats.list_pod_stats(UsageScope::CpuAndMemory).await;
    let names: Vec<_> = usage.pods.iter().map(|pod| pod.pod.name.as_str()).collect();
    assert_eq!(names, ["pod-bad", "pod-good"]);
    let containers: Vec<_> = usage.pods[1].containers.iter().map(|c| c.status.name.as_str()).collect();
    assert_eq!(containers, ["main"], "what does not run uses nothing");
    assert_eq!(usage.pods[1].containers[0].status.state, ContainerState::Running);
    assert!(usage.failed.is_empty());
    assert_eq!(stats.image_fs_stats().await.len(), 2);

    fake.set_error(Call::ContainerStats, Some(Error::internal("down")));
    let usage = stats.list_pod_stats(UsageScope::Everything).await;
    assert_eq!(usage.failed, [("bad", "down".to_owned())]);
    assert_eq!(usage.pods.len(), 1);
    assert_eq!(usage.pods[0].containers[0].logs, None, "there is no log");

    fake.set_error(Call::ContainerStats, Some(Error::unimplemented("container statistics")));
    assert!(stats.list_pod_stats(UsageScope::Everything).await.failed.is_empty(), "has none, and is well");
}
