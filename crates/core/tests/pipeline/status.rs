//! What becomes of statuses when the apiserver, or somebody else, does not do as it should.

use std::time::Duration;

use coracle_core::ports::ApiError;
use coracle_provider::ContainerState;
use coracle_provider::fake::Call;
use k8s_openapi::api::core::v1::{PodCondition, PodReadinessGate};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::{World, one};

#[tokio::test(start_paused = true)]
async fn after_every_kind_of_failure_the_truth_is_told() {
    let busy = |seconds| ApiError::TooManyRequests {
        message: "busy".into(),
        retry_after: Some(Duration::from_secs(seconds)),
    };
    let failures = [
        ApiError::Conflict("another writer was first".into()),
        ApiError::Forbidden("not yours".into()),
        ApiError::Invalid("it cannot be".into()),
        ApiError::Unavailable("timed out".into()),
        busy(3),
    ];
    for failure in failures {
        let world = World::start().await;
        world.create("a", one("Never", "app"));
        world.until("Running", |w| w.phase("a") == "Running").await;
        *world.api.patch_error.lock() = Some(failure.clone());
        world.fast.exit("a", "main", 3);
        sleep(Duration::from_secs(100)).await;
        assert_eq!(world.phase("a"), "Running", "{failure:?}");
        *world.api.patch_error.lock() = None;
        let well = Instant::now();
        world.until("told", |w| w.phase("a") == "Failed").await;
        assert!(well.elapsed() <= Duration::from_secs(11), "{failure:?}: {:?}", well.elapsed());
        assert_eq!(world.condition("a", "Ready"), "False");
        world.delete("a", 0);
        world.until("gone", |w| w.phase("a") == "gone").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_apiserver_has_not_heard_of_is_deleted_again() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    *world.api.deletes_unheard.lock() = 3;
    world.delete("a", 0);
    world.until("gone", |w| w.phase("a") == "gone").await;
    assert_eq!(*world.api.deletes_unheard.lock(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_is_told_no_more_and_its_successor_is() {
    let world = World::start().await;
    world.create("old", one("Always", "app"));
    world.until("Running", |w| w.phase("old") == "Running").await;
    *world.api.patch_error.lock() = Some(ApiError::Conflict("another UID".into()));
    world.fast.exit("old", "main", 1);
    sleep(Duration::from_secs(2)).await;
    let pod = world.api.get("old").unwrap();
    world.force_delete("old");
    let mut new = (*pod).clone();
    new.metadata.uid = Some("new".into());
    new.status = None;
    world.api.put(new);
    *world.api.patch_error.lock() = None;
    let before = world.patches("old").len();
    world.until("the new one runs", |w| w.phase("new") == "Running").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.patches("old").len(), before);
    let alive = |uid: &str| {
        world.fast.containers().iter().any(|c| c.pod.uid == uid && c.state == ContainerState::Running)
    };
    assert!(!alive("old") && alive("new"));
    assert_eq!(world.restarts("new"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_writes_over_it_is_set_right() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    world.change("a", |pod| {
        let status = pod.status.as_mut().unwrap();
        status.phase = Some("Pending".into());
        status.pod_ip = None;
        status.container_statuses = None;
    });
    let changed = Instant::now();
    world.until("set right", |w| w.phase("a") == "Running").await;
    assert!(changed.elapsed() <= Duration::from_secs(11), "{:?}", changed.elapsed());
    assert_eq!(world.condition("a", "Ready"), "True");
    assert!(world.api.get("a").unwrap().status.as_ref().unwrap().container_statuses.is_some());
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_decide_and_are_explained() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["readinessGates"] = json!([{"conditionType": "example.com/gate"}]);
    world.create("a", spec);
    world.until("Running", |w| w.phase("a") == "Running").await;
    let gates = world.api.get("a").unwrap().spec.clone().unwrap().readiness_gates;
    assert_eq!(gates, Some(vec![PodReadinessGate { condition_type: "example.com/gate".into() }]));
    let ready = |w: &World| {
        let conditions = w.api.get("a").unwrap().status.clone().unwrap().conditions.unwrap();
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
        format!("{} {}", ready.status, ready.message.unwrap_or_default())
    };
    assert_eq!(
        ready(&world),
        "False corresponding condition of pod readiness gate \"example.com/gate\" does not exist."
    );
    for (status, expected) in [
        ("False", "False the status of pod readiness gate \"example.com/gate\" is not \"True\", but False"),
        ("True", "True "),
        ("False", "False the status of pod readiness gate \"example.com/gate\" is not \"True\", but False"),
    ] {
        world.change("a", |pod| {
            let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
            conditions.retain(|c| c.type_ != "example.com/gate");
            let gate = PodCondition {
                type_: "example.com/gate".into(),
                status: status.into(),
                ..PodCondition::default()
            };
            conditions.push(gate);
        });
        let changed = Instant::now();
        world.until("explained", |w| ready(w) == expected).await;
        assert!(changed.elapsed() < Duration::from_millis(100), "{status}: {:?}", changed.elapsed());
        assert_eq!(world.condition("a", "example.com/gate"), status);
    }
}
