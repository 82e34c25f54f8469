//! Limits hold, and a guest that misbehaves is its own problem.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http;
use serde_json::json;

use crate::support::{
    container, create, output_of, restarts, serve, spec, status_of, until_phase, until_ready,
};

#[test]
fn memory_over_the_limit_is_oom_killed() {
    let cluster = Cluster::new("oom").unwrap();
    let ip = serve(&cluster, "witness");
    let mut main = container("main", "oom", &[]);
    main["resources"] = json!({ "limits": { "memory": "32Mi" } });
    create(&cluster, "greedy", &spec(&cluster, "Never", &json!([main])));
    let pod = until_phase(&cluster, "greedy", "Failed");
    let ended = &status_of(&pod, "main")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));

    let mut modest = container("main", "oom", &["16"]);
    modest["resources"] = json!({ "limits": { "memory": "32Mi" } });
    create(&cluster, "modest", &spec(&cluster, "Never", &json!([modest])));
    assert_eq!(output_of(&cluster, "modest"), "oom: 16 MiB\n");
    assert_eq!(http::get(&format!("http://{ip}:8080/")).unwrap().status, 200);
}

#[test]
fn endless_loops_delay_neither_neighbours_nor_the_node() {
    let cluster = Cluster::new("spin").unwrap();
    let ip = serve(&cluster, "witness");
    for number in 0..8 {
        let name = format!("spin-{number}");
        create(&cluster, &name, &spec(&cluster, "Always", &json!([container("main", "stay", &["spin"])])));
    }
    for number in 0..8 {
        until_ready(&cluster, &format!("spin-{number}"));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(http::get(&format!("http://{ip}:8080/")).unwrap().status, 200);
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(http::get(&cluster.node.healthz()).unwrap().body, "ok");
    let witness = cluster.kubectl.get("pod", "witness").unwrap();
    assert_eq!(restarts(&witness, "http"), 0);
}

#[test]
fn a_request_that_spins_or_traps_takes_no_other_with_it() {
    let cluster = Cluster::new("requests").unwrap();
    let ip = serve(&cluster, "http");
    let spinning = {
        let url = format!("http://{ip}:8080/spin");
        std::thread::spawn(move || http::get(&url))
    };
    for _ in 0..10 {
        assert!(http::get(&format!("http://{ip}:8080/trap")).map_or(true, |answer| answer.status == 500));
        assert_eq!(http::get(&format!("http://{ip}:8080/fine")).unwrap().body, "hello from wasm: /fine\n");
    }
    let pod = cluster.kubectl.get("pod", "http").unwrap();
    assert_eq!(restarts(&pod, "http"), 0);
    drop(cluster);
    assert!(spinning.join().unwrap().map_or(true, |answer| answer.status >= 500));
}
