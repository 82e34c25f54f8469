//! `/stats/summary`.

use coracle_core::stats::PodsUsage;
use serde_json::{Value, json};

use crate::metrics::{server, usage};
use crate::server::Setup;

#[tokio::test]
async fn the_summary_is_upstreams() {
    let server = server(usage()).await;
    let mut admin = server.admin().await;
    let answer = admin.get("/stats/summary").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.body.starts_with("{\n \"node\": {\n  \"nodeName\": \"node-1\","), "{answer:?}");
    let summary: Value = serde_json::from_str(&answer.body).unwrap();
    let time = "1970-01-01T00:33:20Z";
    let container = json!({
        "name": "a",
        "startTime": "1970-01-01T00:30:01Z",
        "cpu": {"time": time, "usageNanoCores": 7, "usageCoreNanoSeconds": 1_500_000_000},
        "memory": {"time": time, "availableBytes": 3096, "usageBytes": 1000, "workingSetBytes": 1000, "rssBytes": 1000},
        "logs": {
            "time": time, "availableBytes": 60, "capacityBytes": 100, "usedBytes": 8192,
            "inodesFree": 7, "inodes": 10, "inodesUsed": 2,
        },
    });
    let pod = &summary["pods"][0];
    assert_eq!(pod["containers"][0], container);
    assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "ns", "uid": "uid-web"}));
    assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], 3_750_000_000_u64);
    assert_eq!(pod["cpu"]["usageNanoCores"], 14);
    assert_eq!(pod["memory"]["workingSetBytes"], 1024);
    let volume = |name: &str| {
        json!({
            "name": name, "time": time, "availableBytes": 600, "capacityBytes": 1000, "usedBytes": 300,
            "inodesFree": 5, "inodes": 9, "inodesUsed": 3,
        })
    };
    assert_eq!(pod["volume"], json!([volume("data"), volume("kube-api-access")]));
    assert_eq!(pod["ephemeral-storage"]["usedBytes"], 16384 + 300, "logs, and the volume that counts");
    let interface = json!({"name": "eth0", "rxBytes": 11, "rxErrors": 0, "txBytes": 12, "txErrors": 1});
    assert_eq!(pod["network"]["interfaces"], json!([interface]));
    assert_eq!((&pod["network"]["name"], &pod["network"]["txBytes"]), (&json!("eth0"), &json!(12)));
    let node = &summary["node"];
    assert_eq!(node["startTime"], "1970-01-01T00:16:40Z");
    assert_eq!(node["memory"]["availableBytes"], 70);
    assert_eq!(node["swap"], json!({"time": time, "swapAvailableBytes": 6, "swapUsageBytes": 4}));
    assert_eq!(node["rlimit"], json!({"time": time, "maxpid": 1000, "curproc": 50}));
    assert_eq!(node["runtime"]["imageFs"]["capacityBytes"], 100);
    assert_eq!(node["fs"]["inodesUsed"], 3);
    let names: Vec<_> = node["systemContainers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["kubelet", "pods"]);

    let answer = admin.get("/stats/summary?only_cpu_and_memory=true").await;
    let summary: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(summary["node"]["cpu"]["usageCoreNanoSeconds"], 12_500_000_000_u64);
    for left_out in ["network", "fs", "rlimit", "runtime"] {
        assert!(summary["node"].get(left_out).is_none(), "{left_out}");
    }
    assert!(summary["pods"][0].get("ephemeral-storage").is_none());
}

#[tokio::test]
async fn without_pods_the_list_is_empty_and_without_a_node_there_is_an_error() {
    let answer = server(PodsUsage::default()).await.admin().await.get("/stats/summary").await;
    let summary: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(summary["pods"], json!([]));
    let unknown = crate::server::TestServer::start(Setup::default()).await;
    let answer = unknown.admin().await.get("/stats/summary").await;
    let error = "Internal Error: failed to get root cgroup stats: nobody measures this node";
    assert_eq!(answer.is(), (500, error));
}
