//! The agent and the apiserver go and come back.

use coracle_tests::cluster::{self, Cluster};
use coracle_tests::http;
use coracle_tests::node::condition;
use serde_json::json;

use crate::support::{
    ask, container, create, image, pod_ip, restarts, serve, soon, spec, status_of, until, until_phase,
    until_ready,
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
    let mut control_plane = cluster::start_control_plane().unwrap();
    let cluster = Cluster::on(&control_plane, "away", &json!({})).unwrap();
    let ip = serve(&cluster, "http");
    // It ends while nobody can be told.
    let ticking = json!([{ "name": "main", "image": image("oom"), "args": ["64"] }]);
    create(&cluster, "ends", &spec(&cluster, "Never", &ticking));

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

    until_phase(&cluster, "ends", "Succeeded");
    assert_eq!(restarts(&cluster.kubectl.get("pod", "http").unwrap(), "http"), 0);
    // And new work arrives.
    serve(&cluster, "new");
    cluster.kubectl.run(&["delete", "pod", "http", "--wait=false"]).unwrap();
    cluster.kubectl.until_gone("pod", "http", soon()).unwrap();
}
