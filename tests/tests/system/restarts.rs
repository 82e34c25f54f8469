//! The agent and the apiserver go and come back.

use coracle_tests::cluster::{self, Cluster};
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::http;
use coracle_tests::node::{Node, condition};
use serde_json::json;

use crate::support::{
    ask, container, create, http_container, image, pod_ip, restarts, serve, soon, spec, status_of, until,
    until_phase, until_ready,
};

#[test]
fn after_kill_9_pods_serve_again_and_nothing_runs_twice() {
    let mut cluster = Cluster::new("kill-9").unwrap();
    let ip = serve(&cluster, "http");
    create(&cluster, "stays", &spec(&cluster, "Never", &json!([container("main", "stay", &["sleep"])])));
    create(&cluster, "done", &spec(&cluster, "Never", &json!([container("main", "hello", &[])])));
    until_ready(&cluster, "stays");
    let done = until_phase(&cluster, "done", "Succeeded");
    let before = until_ready(&cluster, "http");

    cluster.node.kill().unwrap();
    assert!(http::get(&format!("http://{ip}:8080/")).is_err());
    cluster.node.resume().unwrap();

    // In process, guests die with the agent: a pod that may restart does, and counts it.
    let after = until(&cluster, "http", "it serves again", |pod| {
        restarts(pod, "http") == 1 && condition(pod, "Ready") == Some("True")
    });
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(ask(&pod_ip(&after), "/again").body, "hello from wasm: /again\n");
    // One that may not has failed, and does not run a second time.
    let failed = until_phase(&cluster, "stays", "Failed");
    let ended = &status_of(&failed, "main")["state"]["terminated"];
    assert_eq!(ended["exitCode"], 137, "{ended}");
    assert_eq!(restarts(&failed, "main"), 0);
    // One that was done stays done.
    let still = cluster.kubectl.get("pod", "done").unwrap();
    assert_eq!(still["status"]["phase"], "Succeeded");
    assert_eq!(status_of(&still, "main")["containerID"], status_of(&done, "main")["containerID"]);
}

#[test]
fn pods_deleted_while_the_agent_is_away_go_when_it_is_back() {
    let mut cluster = Cluster::new("deleted-away").unwrap();
    serve(&cluster, "http");
    cluster.node.kill().unwrap();
    cluster.kubectl.run(&["delete", "pod", "http", "--wait=false"]).unwrap();
    cluster.node.resume().unwrap();
    cluster.kubectl.until_gone("pod", "http", soon()).unwrap();
}

#[test]
fn an_orderly_restart_keeps_the_pods() {
    let mut cluster = Cluster::new("orderly").unwrap();
    serve(&cluster, "http");
    cluster.node.stop().unwrap();
    cluster.node.resume().unwrap();
    let pod = until(&cluster, "http", "it serves again", |pod| {
        restarts(pod, "http") == 1 && condition(pod, "Ready") == Some("True")
    });
    assert_eq!(ask(&pod_ip(&pod), "/").status, 200);
}

#[test]
fn nothing_is_lost_while_the_apiserver_is_away() {
    let mut control_plane = ControlPlane::start().unwrap();
    cluster::install(&control_plane.kubectl()).unwrap();
    let kubectl = cluster::namespace(&control_plane, "away").unwrap();
    let node = Node::start(&control_plane, "away").unwrap();
    node.await_ready(&control_plane.kubectl()).unwrap();
    let pod = |name: &str, container: &serde_json::Value, policy: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name },
            "spec": {
                "runtimeClassName": "wasm",
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
            },
        })
        .to_string()
    };
    let ready = |pod: &serde_json::Value| condition(pod, "Ready") == Some("True");
    kubectl.create(&pod("http", &http_container("http"), "Always")).unwrap();
    let ip = pod_ip(&kubectl.until("pod", "http", "it is Ready", soon(), ready).unwrap());
    // It ends while nobody can be told.
    let ticking = json!({ "name": "main", "image": image("oom"), "args": ["64"] });
    kubectl.create(&pod("ends", &ticking, "Never")).unwrap();

    control_plane.stop_apiserver().unwrap();
    for _ in 0..20 {
        assert_eq!(
            http::get(&format!("http://{ip}:8080/alone")).unwrap().status,
            200,
            "pods serve without it"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    control_plane.start_apiserver().unwrap();

    kubectl
        .until("pod", "ends", "its end is reported", soon(), |pod| pod["status"]["phase"] == "Succeeded")
        .unwrap();
    let http = kubectl.get("pod", "http").unwrap();
    assert_eq!(restarts(&http, "http"), 0);
    // And new work arrives.
    kubectl.create(&pod("new", &http_container("http"), "Always")).unwrap();
    kubectl.until("pod", "new", "it is Ready", soon(), ready).unwrap();
    kubectl.run(&["delete", "pod", "http", "--wait=false"]).unwrap();
    kubectl.until_gone("pod", "http", soon()).unwrap();
}
