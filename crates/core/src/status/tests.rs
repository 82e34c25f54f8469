//! What probes do to statuses.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::StatusManager;
use super::container_statuses::{ContainerKind, set_started_and_ready};
use crate::fakes::FakeSink;
use crate::pod::PodExt;
use crate::pod_manager::PodManager;
use crate::prober::{ProbeResult, ProbeResults};

/// A container with some of the probes that these letters stand for: `s`tartup, `r`eadiness.
fn container(name: &str, probes: &str, restart_policy: Option<&str>) -> Container {
    let probe = |letter| probes.contains(letter).then(|| json!({"tcpSocket": {"port": 1}}));
    serde_json::from_value(json!({"name": name, "image": "i", "restartPolicy": restart_policy,
        "startupProbe": probe('s'), "readinessProbe": probe('r')}))
    .unwrap()
}

fn status(name: &str, id: &str, state: Value, started: Option<bool>, ready: bool) -> ContainerStatus {
    serde_json::from_value(json!({"name": name, "containerID": id, "image": "i", "imageID": "",
        "ready": ready, "started": started, "restartCount": 0, "state": state}))
    .unwrap()
}

fn running() -> Value {
    json!({"running": {}})
}

/// Started and ready, as they are made for one container.
fn judge(
    container: &Container,
    state: Value,
    old: Option<ContainerStatus>,
    kind: ContainerKind,
    (startup, readiness): (Option<ProbeResult>, Option<ProbeResult>),
) -> (bool, bool) {
    let results = ProbeResults::default();
    if let Some(result) = startup {
        results.startup.set("id", result);
    }
    if let Some(result) = readiness {
        results.readiness.set("id", result);
    }
    let mut statuses = [status(&container.name, "id", state, None, false)];
    let old: Vec<_> = old.into_iter().collect();
    set_started_and_ready(std::slice::from_ref(container), &mut statuses, &old, kind, &results);
    (statuses[0].started.unwrap(), statuses[0].ready)
}

#[test]
fn probes_decide_what_has_started_and_is_ready() {
    use ProbeResult::{Failure, Success, Unknown};
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    let cases = [
        ("", running(), (None, None), (true, true)),
        ("r", running(), (None, Some(Success)), (true, true)),
        ("r", running(), (None, None), (true, false)),
        ("r", running(), (None, Some(Failure)), (true, false)),
        ("s", running(), (None, None), (false, false)),
        ("s", running(), (Some(Unknown), None), (false, false)),
        ("s", running(), (Some(Failure), None), (false, false)),
        ("s", running(), (Some(Success), None), (true, true)),
        ("sr", running(), (Some(Success), Some(Failure)), (true, false)),
        ("sr", running(), (Some(Success), Some(Success)), (true, true)),
        ("sr", running(), (Some(Unknown), Some(Success)), (false, false)),
        ("sr", ended(0), (Some(Success), Some(Success)), (false, false)),
        ("", json!({"waiting": {}}), (None, None), (false, false)),
    ];
    for (probes, state, results, expected) in cases {
        for (kind, policy) in [(ContainerKind::Main, None), (ContainerKind::Init, Some("Always"))] {
            let container = container("c", probes, policy);
            let actual = judge(&container, state.clone(), None, kind, results);
            assert_eq!(actual, expected, "{probes:?} {state} {results:?} {policy:?}");
        }
    }
    let once = container("c", "", None);
    for (state, expected) in
        [(running(), (true, false)), (ended(0), (false, true)), (ended(1), (false, false))]
    {
        assert_eq!(judge(&once, state, None, ContainerKind::Init, (None, None)), expected);
    }
    let actual = judge(&once, running(), None, ContainerKind::Ephemeral, (None, None));
    assert_eq!(actual, (true, false), "ephemeral containers are never ready");
}

#[test]
fn a_container_that_the_api_knows_stays_what_it_was_until_its_probes_have_spoken() {
    use ProbeResult::{Failure, Success};
    let old = |id: &str, started, ready| Some(status("c", id, running(), Some(started), ready));
    let cases = [
        (old("id", true, true), (None, None), (true, true)),
        (old("id", true, false), (None, None), (true, false)),
        (old("id", false, false), (None, None), (false, false)),
        (old("another", true, true), (None, None), (false, false)),
        (old("id", true, true), (Some(Failure), None), (false, false)),
        (old("id", true, true), (Some(Success), Some(Failure)), (true, false)),
        (old("id", false, false), (Some(Success), Some(Success)), (true, true)),
    ];
    for (old, results, expected) in cases {
        let actual = judge(&container("c", "sr", None), running(), old.clone(), ContainerKind::Main, results);
        assert_eq!(actual, expected, "{old:?} {results:?}");
    }
}

/// A pod of a sidecar and two containers, all running, that was set to be unready.
fn managed() -> (StatusManager, Arc<Pod>) {
    let spec = json!({
        "initContainers": [container("side", "sr", Some("Always"))],
        "containers": [container("a", "r", None), container("b", "s", None)],
    });
    let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap();
    let pod = Arc::new(pod);
    let status = PodStatus {
        phase: Some("Running".into()),
        init_container_statuses: Some(vec![status("side", "p://side", running(), Some(true), true)]),
        container_statuses: Some(vec![
            status("a", "p://a", running(), Some(true), false),
            status("b", "p://b", running(), Some(false), false),
        ]),
        ..PodStatus::default()
    };
    let manager = StatusManager::new(Arc::new(FakeSink::default()), Arc::default());
    manager.set_pod_status(&pod, status);
    (manager, pod)
}

/// Which containers are ready, and the conditions that follow.
fn shown(manager: &StatusManager, pod: &Pod) -> (String, String) {
    let status = manager.get_pod_status(&pod.uid()).unwrap();
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let ready = lists.into_iter().flatten().flatten().filter(|c| c.ready);
    let ready = ready.map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ");
    let mut conditions: Vec<String> =
        status.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect();
    conditions.sort();
    (ready, conditions.join(" "))
}

fn both(ready: &str, conditions: &str) -> (String, String) {
    (ready.to_owned(), conditions.to_owned())
}

#[test]
fn readiness_shows_in_the_container_and_in_the_pod() {
    let (manager, pod) = managed();
    let uid = pod.uid();
    manager.set_container_startup(&uid, "p://b", true);
    let unready = "ContainersReady=False Initialized=True Ready=False";
    assert_eq!(shown(&manager, &pod), both("side b", unready), "it has no other probe");
    manager.set_container_readiness(&uid, "p://a", true);
    let ready = "ContainersReady=True Initialized=True Ready=True";
    assert_eq!(shown(&manager, &pod), both("side a b", ready));
    manager.set_container_readiness(&uid, "p://side", false);
    assert_eq!(shown(&manager, &pod), both("a b", unready), "a sidecar counts");
    manager.set_container_startup(&uid, "p://side", false);
    assert_eq!(shown(&manager, &pod).1, "ContainersReady=False Initialized=True Ready=False");
}

#[test]
fn what_is_not_known_or_does_not_run_stays_as_it_is() {
    let (manager, pod) = managed();
    let uid = pod.uid();
    let before = manager.get_pod_status(&uid).unwrap();
    manager.set_container_readiness(&uid, "p://other", true);
    manager.set_container_readiness(&"other".into(), "p://a", true);
    manager.set_container_startup(&uid, "p://other", true);
    assert_eq!(manager.get_pod_status(&uid).unwrap(), before);
    manager.set_container_readiness(&uid, "p://b", true);
    assert_eq!(shown(&manager, &pod).0, "side", "it has not started");

    let mut ended = (*before).clone();
    let a = &mut ended.container_statuses.as_mut().unwrap()[0];
    a.state = serde_json::from_value(json!({"terminated": {"exitCode": 1}})).unwrap();
    a.started = Some(false);
    manager.set_pod_status(&pod, ended);
    manager.set_container_readiness(&uid, "p://a", true);
    manager.set_container_startup(&uid, "p://a", true);
    assert_eq!(shown(&manager, &pod).0, "side");
}

#[test]
fn the_time_of_a_condition_changes_with_its_status_only() {
    let (manager, pod) = managed();
    let uid = pod.uid();
    let times = |manager: &StatusManager| -> Vec<_> {
        let status = manager.get_pod_status(&uid).unwrap();
        status.conditions.iter().flatten().map(|c| c.last_transition_time.clone()).collect()
    };
    manager.set_container_readiness(&uid, "p://a", true);
    let before = times(&manager);
    assert!(before.iter().all(Option::is_some));
    manager.set_container_readiness(&uid, "p://side", false);
    assert_eq!(times(&manager), before, "the pod was not ready before either");
}

#[test]
fn what_a_mirror_shows_of_an_earlier_life_is_not_where_a_static_pod_goes_on() {
    let annotated = |uid: &str, source: &str, hash: &str, status: Value| {
        let annotations = json!({"kubernetes.io/config.source": source, hash: "h"});
        let metadata = json!({"name": "web-node", "namespace": "ns", "uid": uid, "annotations": annotations});
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
        let pod = json!({"metadata": metadata, "spec": spec, "status": status});
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let pod = annotated("u", "file", "kubernetes.io/config.hash", json!({}));
    let state = json!({"terminated": {"exitCode": 137}});
    let ended = json!({"phase": "Pending", "containerStatuses": [status("a", "", state, None, false)]});
    let mirror = annotated("m1", "api", "kubernetes.io/config.mirror", ended);
    let pods = Arc::new(PodManager::default());
    pods.upsert(pod.clone());
    pods.upsert(mirror.clone());
    let manager = StatusManager::new(Arc::new(FakeSink::default()), pods.clone());
    assert_eq!(*manager.status_before(&pod), *mirror.pod_status(), "a restart of the agent");

    manager.terminate_pod(&pod);
    manager.forget_finished("u");
    assert_eq!(*manager.status_before(&pod), PodStatus::default(), "wanted again");
    let waits = json!({"waiting": {"reason": "ContainerCreating"}});
    let status = PodStatus {
        phase: Some("Pending".into()),
        container_statuses: Some(vec![status("a", "", waits, None, false)]),
        ..PodStatus::default()
    };
    manager.set_pod_status(&pod, status.clone());
    assert_eq!(manager.get_pod_status("u").unwrap().container_statuses, status.container_statuses);

    manager.terminate_pod(&pod);
    pods.remove(&mirror);
    manager.remove_orphaned_statuses(|_| false);
    pods.upsert(mirror.clone());
    assert_eq!(*manager.status_before(&pod), *mirror.pod_status(), "one that was gone is forgotten");
}
