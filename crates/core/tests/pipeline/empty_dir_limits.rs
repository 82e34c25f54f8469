//! Pods that write more into an empty directory than they may.

use std::time::Duration;

use coracle_core::metrics;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

const MIB: u64 = 1 << 20;

#[tokio::test(start_paused = true)]
async fn a_pod_with_an_empty_directory_beyond_its_limit_is_evicted() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["terminationGracePeriodSeconds"] = json!(300);
    spec["volumes"] = json!([
        { "name": "free", "emptyDir": {} },
        { "name": "none", "emptyDir": { "sizeLimit": "0" } },
        { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        { "name": "limited", "emptyDir": { "sizeLimit": "8Mi" } },
    ]);
    let used = |volume: &str, bytes| world.api.used_bytes.lock().insert(volume.to_owned(), bytes);
    for volume in ["free", "none", "memory", "limited"] {
        used(volume, if volume == "limited" { 8 * MIB } else { 100 * MIB });
    }
    world.create("uid-1", spec);
    world.until("Running", |w| w.phase("uid-1") == "Running").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.phase("uid-1"),
        "Running",
        "a limit may be reached, and only one of a directory on disk counts"
    );

    used("limited", 8 * MIB + 1);
    let since = Instant::now();
    world.until("Failed", |w| w.phase("uid-1") == "Failed").await;
    assert!(since.elapsed() <= Duration::from_secs(15), "{:?}", since.elapsed());
    let pod = world.api.get("uid-1").unwrap();
    let status = pod.status.as_ref().unwrap();
    let message = "Usage of EmptyDir volume \"limited\" exceeds the limit \"8Mi\". ";
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("Evicted"), Some(message)));
    sleep(Duration::from_secs(60)).await;
    let told =
        world.api.events.lock().iter().filter(|e| e.reason == "Evicted" && e.message == message).count();
    assert_eq!(told, 1, "it is said once");
    assert_eq!(metrics::EVICTIONS.with_label_values(&["emptydirfs.limit"]).get(), 1);
}
