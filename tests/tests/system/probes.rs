//! Probes and hooks of real pods, seen by kubectl.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::node::condition;
use serde_json::{Value, json};

use crate::support::{
    container, create, http_container, restarts, soon, spec, status_of, until, until_event, until_ready,
};

fn get(path: &str) -> Value {
    json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 1 })
}

#[test]
fn a_pod_is_ready_as_long_as_its_probe_says_so() {
    let cluster = Cluster::new("readiness").unwrap();
    let mut http = http_container("http");
    http["readinessProbe"] = get("/file/state/ready");
    http["readinessProbe"]["failureThreshold"] = json!(1);
    http["volumeMounts"] = json!([{ "name": "state", "mountPath": "/state" }]);
    let mut probed = spec(&cluster, "Always", &json!([http]));
    probed["volumes"] = json!([{ "name": "state", "configMap": { "name": "state", "optional": true } }]);
    create(&cluster, "probed", &probed);
    until(&cluster, "probed", "it runs and is not ready", |pod| {
        pod["status"]["phase"] == "Running" && condition(pod, "Ready") == Some("False")
    });
    let event = until_event(&cluster, "probed", "Unhealthy");
    assert_eq!(event, "Readiness probe failed: HTTP probe failed with statuscode: 404");

    cluster.kubectl.run(&["create", "configmap", "state", "--from-literal=ready=yes"]).unwrap();
    let pod = until_ready(&cluster, "probed");
    assert_eq!(status_of(&pod, "http")["ready"], true);
    cluster.kubectl.run(&["delete", "configmap", "state"]).unwrap();
    until(&cluster, "probed", "it is not ready", |pod| condition(pod, "Ready") == Some("False"));
    let pod = cluster.kubectl.get("pod", "probed").unwrap();
    assert_eq!(restarts(&pod, "http"), 0);
}

#[test]
fn a_container_that_is_not_alive_is_restarted() {
    let cluster = Cluster::new("liveness").unwrap();
    let mut http = http_container("http");
    http["livenessProbe"] = get("/status/500");
    http["livenessProbe"]["failureThreshold"] = json!(2);
    http["startupProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    create(&cluster, "sick", &spec(&cluster, "Always", &json!([http])));
    let pod = until(&cluster, "sick", "it was restarted", |pod| restarts(pod, "http") > 0);
    let ended = &status_of(&pod, "http")["lastState"]["terminated"];
    assert!(ended["containerID"].as_str().unwrap().starts_with("wasm://"), "{ended}");
    let event = until_event(&cluster, "sick", "Unhealthy");
    assert_eq!(event, "Liveness probe failed: HTTP probe failed with statuscode: 500");
    let event = until_event(&cluster, "sick", "Killing");
    assert_eq!(event, "Container http failed liveness probe, will be restarted");
}

#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    let cluster = Cluster::new("hooks").unwrap();
    let mut http = http_container("http");
    http["lifecycle"] = json!({
        "postStart": { "httpGet": { "path": "/hello-there", "port": "http" } },
        "preStop": { "sleep": { "seconds": 4 } },
    });
    let mut hooked = spec(&cluster, "Always", &json!([http]));
    hooked["terminationGracePeriodSeconds"] = json!(30);
    create(&cluster, "hooked", &hooked);
    until_ready(&cluster, "hooked");
    assert_eq!(cluster.kubectl.run(&["logs", "hooked"]).unwrap(), "/hello-there\n");
    let deleted = Instant::now();
    cluster.kubectl.run(&["delete", "pod", "hooked", "--wait=false"]).unwrap();
    cluster.kubectl.until_gone("pod", "hooked", soon()).unwrap();
    assert!(deleted.elapsed() >= Duration::from_secs(4), "{:?}", deleted.elapsed());
    assert!(deleted.elapsed() < Duration::from_secs(20), "{:?}", deleted.elapsed());
}

#[test]
fn a_hook_that_fails_is_told() {
    let cluster = Cluster::new("failed-hook").unwrap();
    let mut stay = container("main", "stay", &[]);
    stay["lifecycle"] = json!({ "postStart": { "httpGet": { "path": "/", "port": 9 } } });
    create(&cluster, "hooked", &spec(&cluster, "Always", &json!([stay])));
    assert_eq!(until_event(&cluster, "hooked", "FailedPostStartHook"), "PostStartHook failed");
    until(&cluster, "hooked", "it waits", |pod| {
        status_of(pod, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
}

#[test]
fn commands_are_probes_and_hooks_too() {
    let cluster = Cluster::new("commands").unwrap();
    let mut main = container("main", "stay", &[]);
    main["readinessProbe"] = json!({ "exec": { "command": ["stay", "exit", "3"] }, "periodSeconds": 1 });
    main["lifecycle"] = json!({ "preStop": { "exec": { "command": ["stay", "exit", "4"] } } });
    create(&cluster, "probed", &spec(&cluster, "Always", &json!([main])));
    let event = until_event(&cluster, "probed", "Unhealthy");
    assert_eq!(event, "Readiness probe failed: stay: ends with 3\n");
    cluster.kubectl.run(&["delete", "pod", "probed", "--wait=false"]).unwrap();
    assert_eq!(until_event(&cluster, "probed", "FailedPreStopHook"), "PreStopHook failed");
    cluster.kubectl.until_gone("pod", "probed", soon()).unwrap();

    let mut main = container("main", "stay", &[]);
    main["readinessProbe"] = json!({ "exec": { "command": ["stay", "exit", "0"] }, "periodSeconds": 1 });
    create(&cluster, "healthy", &spec(&cluster, "Always", &json!([main])));
    until_ready(&cluster, "healthy");
}
