//! Pods as controllers make them, through the real scheduler and by nothing but the RuntimeClass.

use coracle_tests::cluster;
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::node::{Node, condition};
use serde_json::json;

use crate::support::{ask, http_container, image, pod_ip, soon};

/// One node, so that the RuntimeClass alone leads to it.
fn one_node(name: &str) -> (Node, ControlPlane) {
    let control_plane = cluster::start_control_plane().unwrap();
    let node = Node::start(&control_plane, name).unwrap();
    node.await_ready(&control_plane.kubectl()).unwrap();
    (node, control_plane)
}

#[test]
fn a_deployment_serves_scales_and_goes() {
    let (_node, control_plane) = one_node("deployments");
    let kubectl = cluster::namespace(&control_plane, "web").unwrap();
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "runtimeClassName": "wasm",
                    "terminationGracePeriodSeconds": 2,
                    "containers": [http_container("http")],
                },
            },
        },
    });
    kubectl.create(&deployment.to_string()).unwrap();
    kubectl
        .until("deployment", "web", "three are ready", soon(), |it| it["status"]["readyReplicas"] == 3)
        .unwrap();

    let pods = kubectl.list("pods", Some("app=web")).unwrap();
    assert_eq!(pods.len(), 3);
    let mut addresses: Vec<String> = pods.iter().map(pod_ip).collect();
    for (pod, ip) in pods.iter().zip(&addresses) {
        assert_eq!(condition(pod, "Ready"), Some("True"));
        assert_eq!(pod["spec"]["nodeName"], "deployments");
        assert_eq!(ask(ip, "/").status, 200);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3);

    kubectl.run(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).unwrap();
    let slices = coracle_tests::wait::eventually("endpoints", soon(), || {
        let slices = kubectl.list("endpointslices", Some("kubernetes.io/service-name=web"))?;
        let ready = slices.iter().flat_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = ready.filter(|endpoint| endpoint["conditions"]["ready"] == true).count();
        if ready == 3 { Ok(ready) } else { anyhow::bail!("{ready} endpoints") }
    });
    slices.unwrap();

    kubectl.run(&["scale", "deployment", "web", "--replicas=1"]).unwrap();
    let few = || kubectl.list("pods", Some("app=web")).is_ok_and(|pods| pods.len() == 1);
    coracle_tests::wait::until("one is left", soon(), few).unwrap();

    kubectl.run(&["delete", "deployment", "web"]).unwrap();
    let none = || kubectl.list("pods", None).is_ok_and(|pods| pods.is_empty());
    coracle_tests::wait::until("none is left", soon(), none).unwrap();
    for ip in addresses {
        assert!(coracle_tests::http::get(&format!("http://{ip}:8080/")).is_err(), "{ip} answers no more");
    }
}

#[test]
fn jobs_complete_and_fail() {
    let (_node, control_plane) = one_node("jobs");
    let kubectl = cluster::namespace(&control_plane, "jobs").unwrap();
    for (name, guest, code) in [("good", "hello", "0"), ("bad", "exit", "5")] {
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name },
            "spec": {
                "backoffLimit": 0,
                "completions": if name == "good" { 3 } else { 1 },
                "template": {
                    "spec": {
                        "runtimeClassName": "wasm",
                        "restartPolicy": "Never",
                        "containers": [{ "name": "main", "image": image(guest), "args": [code] }],
                    },
                },
            },
        });
        kubectl.create(&job.to_string()).unwrap();
    }
    let complete = kubectl
        .until("job", "good", "it completes", soon(), |job| condition(job, "Complete") == Some("True"));
    assert_eq!(complete.unwrap()["status"]["succeeded"], 3);
    kubectl.until("job", "bad", "it fails", soon(), |job| condition(job, "Failed") == Some("True")).unwrap();
}
