//! Pods come and go in ways that only a real apiserver shows.

use coracle_tests::cluster::{self, Cluster};
use coracle_tests::http;
use coracle_tests::node::condition;
use coracle_tests::wait::{self, Deadline};
use serde_json::{Value, json};

use crate::support::{
    ask, create, http_container, pod, pod_ip, restarts, serve, soon, spec, status_of, until, until_ready,
};

#[test]
fn readiness_gates_hold_a_pod_back_until_somebody_opens_them() {
    let cluster = Cluster::new("gates").unwrap();
    let mut gated = spec(&cluster, "Always", &json!([http_container("http")]));
    gated["readinessGates"] = json!([{ "conditionType": "example.com/in-rotation" }]);
    create(&cluster, "gated", &gated);
    let waiting = until(&cluster, "gated", "its container is ready", |pod| {
        condition(pod, "ContainersReady") == Some("True")
    });
    let conditions = waiting["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ReadinessGatesNotReady")));

    let open =
        json!({ "status": { "conditions": [{ "type": "example.com/in-rotation", "status": "True" }] } });
    let open = open.to_string();
    cluster.kubectl.run(&["patch", "pod", "gated", "--subresource=status", "--patch", &open]).unwrap();
    let ready = until_ready(&cluster, "gated");
    assert_eq!(condition(&ready, "example.com/in-rotation"), Some("True"), "it is somebody else's");
}

#[test]
fn a_finalizer_holds_the_object_but_not_the_containers() {
    let cluster = Cluster::new("finalizer").unwrap();
    let mut held = pod("held", &spec(&cluster, "Always", &json!([http_container("http")])));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.kubectl.create(&held.to_string()).unwrap();
    let ip = pod_ip(&until_ready(&cluster, "held"));

    cluster.kubectl.run(&["delete", "pod", "held", "--wait=false"]).unwrap();
    let ended = until(&cluster, "held", "its container has ended", |pod| {
        status_of(pod, "http")["state"]["terminated"].is_object()
    });
    assert_eq!(condition(&ended, "Ready"), Some("False"));
    assert!(http::get(&format!("http://{ip}:8080/")).is_err(), "it still serves");

    let release = json!({ "metadata": { "finalizers": null } }).to_string();
    cluster.kubectl.run(&["patch", "pod", "held", "--patch", &release]).unwrap();
    cluster.kubectl.until_gone("pod", "held", soon()).unwrap();
}

#[test]
fn a_pod_that_is_forced_out_and_made_anew_at_once_is_a_new_one() {
    let cluster = Cluster::new("forced").unwrap();
    let mut uids = Vec::new();
    let mut old_ip = serve(&cluster, "twice");
    for _ in 0..3 {
        let manifest = pod("twice", &spec(&cluster, "Always", &json!([http_container("http")]))).to_string();
        cluster.kubectl.run(&["delete", "pod", "twice", "--force", "--grace-period=0"]).unwrap();
        cluster.kubectl.create(&manifest).unwrap();
        let new = until_ready(&cluster, "twice");
        assert_eq!(restarts(&new, "http"), 0);
        assert!(!uids.contains(&new["metadata"]["uid"]));
        let ip = pod_ip(&new);
        assert_ne!(ip, old_ip, "an address is not given again at once");
        assert_eq!(ask(&ip, "/new").status, 200);
        let old = format!("http://{old_ip}:8080/");
        wait::until("the old one is gone", soon(), || http::get(&old).is_err()).unwrap();
        uids.push(new["metadata"]["uid"].clone());
        old_ip = ip;
    }
}

/// Two hundred pods, ten times twenty, and an apiserver that dies while the fifth twenty start and the sixth end.
#[test]
fn pods_come_and_go_while_the_apiserver_restarts() {
    const ROUNDS: usize = 10;
    const PODS: usize = 20;
    let mut control_plane = cluster::start_control_plane().unwrap();
    let cluster = Cluster::on(&control_plane, "churn", &json!({})).unwrap();
    let kubectl = &cluster.kubectl;
    let mut spec = spec(&cluster, "Always", &json!([http_container("http")]));
    spec["nodeName"] = json!(cluster.node.name());

    for round in 0..ROUNDS {
        let name = |number: usize| format!("pod-{round}-{number}");
        let manifests: Vec<_> = (0..PODS).map(|number| pod(&name(number), &spec).to_string()).collect();
        kubectl.create(&manifests.join("\n---\n")).unwrap();
        if round == 4 {
            control_plane.stop_apiserver().unwrap();
            control_plane.start_apiserver().unwrap();
        }
        all(kubectl, "Ready", |pods| {
            pods.len() == PODS && pods.iter().all(|pod| condition(pod, "Ready") == Some("True"))
        });
        kubectl.run(&["delete", "pods", "--all", "--wait=false"]).unwrap();
        if round == 5 {
            control_plane.stop_apiserver().unwrap();
            control_plane.start_apiserver().unwrap();
        }
        all(kubectl, "gone", <[Value]>::is_empty);
    }
    let folders = || std::fs::read_dir(cluster.node.root().join("pods")).unwrap().count();
    wait::until("nothing is left of them", soon(), || folders() == 0).unwrap();
}

#[track_caller]
fn all(kubectl: &coracle_tests::kubectl::Kubectl, what: &str, wish: impl Fn(&[Value]) -> bool) {
    wait::eventually(&format!("all are {what}"), Deadline::seconds(60), || {
        let pods = kubectl.list("pods", None)?;
        if wish(&pods) { Ok(()) } else { anyhow::bail!("{:#}", Value::from(pods)) }
    })
    .unwrap();
}
