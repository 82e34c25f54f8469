//! Probes and hooks.

use coracle_tests::cluster::Cluster;
use coracle_tests::node::condition;
use serde_json::json;

use crate::support::{
    ask, container, create, http_container, pod_ip, restarts, spec, until, until_event, until_ready,
};

#[test]
fn readiness_follows_the_probe() {
    let cluster = Cluster::new("readiness").unwrap();
    let mut http = http_container("http");
    // The guest answers 404 until there is such a file.
    http["readinessProbe"] =
        json!({ "httpGet": { "path": "/file/work/ready", "port": 8080 }, "periodSeconds": 1 });
    http["volumeMounts"] = json!([{ "name": "work", "mountPath": "/work" }]);
    let mut spec = spec(&cluster, "Always", &json!([http]));
    spec["volumes"] = json!([{ "name": "work", "configMap": { "name": "switch", "optional": true } }]);
    create(&cluster, "switched", &spec);
    until(&cluster, "switched", "it runs, not ready", |pod| {
        pod["status"]["phase"] == "Running" && condition(pod, "Ready") == Some("False")
    });
    assert!(until_event(&cluster, "switched", "Unhealthy").contains("Readiness probe failed"));
    cluster.kubectl.run(&["create", "configmap", "switch", "--from-literal=ready=yes"]).unwrap();
    cluster
        .kubectl
        .until("pod", "switched", "it is ready", coracle_tests::wait::Deadline::seconds(120), |pod| {
            condition(pod, "Ready") == Some("True")
        })
        .unwrap();
}

#[test]
fn a_failing_liveness_probe_restarts_the_container() {
    let cluster = Cluster::new("liveness").unwrap();
    let mut http = http_container("http");
    http["livenessProbe"] = json!({ "httpGet": { "path": "/status/500", "port": "http" }, "periodSeconds": 1, "failureThreshold": 1 });
    create(&cluster, "sick", &spec(&cluster, "Always", &json!([http])));
    until(&cluster, "sick", "it is restarted", |pod| restarts(pod, "http") >= 1);
    assert!(until_event(&cluster, "sick", "Unhealthy").contains("500"));
    until_event(&cluster, "sick", "Killing");
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let cluster = Cluster::new("startup").unwrap();
    let mut http = http_container("http");
    http["startupProbe"] =
        json!({ "tcpSocket": { "port": 8081 }, "periodSeconds": 1, "failureThreshold": 120 });
    create(&cluster, "slow", &spec(&cluster, "Always", &json!([http])));
    let pod = until(&cluster, "slow", "it runs", |pod| pod["status"]["phase"] == "Running");
    until_event(&cluster, "slow", "Unhealthy");
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    assert_eq!(ask(&pod_ip(&pod), "/").status, 200);
}

#[test]
fn a_tcp_probe_meets_a_guests_own_socket() {
    let cluster = Cluster::new("tcp-probe").unwrap();
    let mut server = container("main", "tcp", &["serve", "0.0.0.0:7000"]);
    server["readinessProbe"] = json!({ "tcpSocket": { "port": 7000 }, "periodSeconds": 1 });
    create(&cluster, "server", &spec(&cluster, "Always", &json!([server])));
    until_ready(&cluster, "server");
}
