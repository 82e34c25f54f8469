//! What a node tells about its pods, read by who reads it in clusters.

use std::os::unix::net::UnixStream;

use coracle_tests::cluster::{self, Cluster};
use coracle_tests::metrics_server::MetricsServer;
use coracle_tests::wait::{self, Deadline};
use serde_json::{Value, json};

use crate::support::{container, create, soon, spec};

/// What kubectl gets from a path of the node's API, by way of the apiserver.
fn of_node(cluster: &Cluster, path: &str) -> String {
    let path = format!("/api/v1/nodes/{}/proxy/{path}", cluster.node.name());
    cluster::control_plane().unwrap().kubectl().run(&["get", "--raw", &path]).unwrap()
}

/// The value of a sample, by everything before it.
fn sample(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.split(' ').next()?.parse().ok()
}

#[test]
fn a_container_that_computes_shows_in_every_statistic() {
    let cluster = Cluster::new("metrics").unwrap();
    create(&cluster, "busy", &spec(&cluster, "Always", &json!([container("spin", "stay", &["spin"])])));
    create(&cluster, "idle", &spec(&cluster, "Always", &json!([container("sleep", "stay", &["sleep"])])));
    for pod in ["busy", "idle"] {
        let is_running = |pod: &Value| pod["status"]["phase"] == "Running";
        cluster.kubectl.until("pod", pod, "it runs", soon(), is_running).unwrap();
    }
    let series = |metric: &str, container: &str, pod: &str| {
        format!(r#"{metric}{{container="{container}",namespace="{}",pod="{pod}"}}"#, cluster.name)
    };
    let cpu = |metrics: &str, container, pod| {
        sample(metrics, &series("container_cpu_usage_seconds_total", container, pod)).unwrap()
    };
    let mut last = 0.0;
    wait::until("the processor time grows", soon(), || {
        let metrics = of_node(&cluster, "metrics/resource");
        let (before, now) = (last, cpu(&metrics, "spin", "busy"));
        last = now;
        before > 0.0 && now > before
    })
    .unwrap();
    let metrics = of_node(&cluster, "metrics/resource");
    assert!(cpu(&metrics, "sleep", "idle") < 1.0, "{metrics}");
    let memory = sample(&metrics, &series("container_memory_working_set_bytes", "sleep", "idle")).unwrap();
    assert!(memory >= 65_536.0, "a page of memory at least: {metrics}");
    assert_eq!(sample(&metrics, "resource_scrape_error"), Some(0.0));

    let summary: Value = serde_json::from_str(&of_node(&cluster, "stats/summary")).unwrap();
    let busy =
        summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap();
    assert!(busy["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{busy}");
    assert!(busy["containers"][0]["logs"]["usedBytes"].as_u64().unwrap() > 0, "{busy}");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{summary}");

    let metrics = of_node(&cluster, "metrics");
    assert_eq!(sample(&metrics, "kubelet_running_pods"), Some(2.0), "{metrics}");
    assert!(sample(&metrics, "coracle_wasm_instances").unwrap() >= 2.0, "{metrics}");
    assert!(sample(&metrics, "kubelet_pod_start_duration_seconds_count").unwrap() >= 2.0, "{metrics}");
    assert!(
        sample(&metrics, r#"kubelet_runtime_operations_total{operation_type="start_container"}"#).unwrap()
            >= 2.0
    );
    assert!(metrics.contains("rest_client_requests_total{code=\"200\""), "{metrics}");

    let configuration: Value = serde_json::from_str(&of_node(&cluster, "configz")).unwrap();
    assert_eq!(configuration["kubeletconfig"]["port"], cluster.node.port());
    assert!(of_node(&cluster, "runningpods/").contains("\"busy\""));

    let volumes = &busy["volume"];
    assert!(volumes[0]["usedBytes"].as_u64().unwrap() > 0, "the token's volume: {busy}");

    let socket = cluster.node.root().join("pod-resources/kubelet.sock");
    UnixStream::connect(&socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));

    // One replica computes all the time, so two are asked for as soon as somebody can tell.
    cluster.kubectl.apply(&computing(&cluster).to_string()).unwrap();
    cluster.kubectl.apply(&autoscaler().to_string()).unwrap();
    let _server = MetricsServer::start(cluster::control_plane().unwrap()).unwrap();
    let top = wait::eventually("metrics-server has seen the pods twice", Deadline::seconds(90), || {
        cluster.kubectl.run(&["top", "pod", "busy", "--containers", "--no-headers"])
    });
    // POD NAME CPU MEMORY; a tenth of a processor at least, on a machine that others use as well.
    let top = top.unwrap();
    let fields: Vec<&str> = top.split_whitespace().collect();
    let millis: u64 = fields[2].strip_suffix('m').unwrap().parse().unwrap();
    assert!(fields[..2] == ["busy", "spin"] && millis >= 100, "{top}");
    // Nothing is missing because it is idle.
    let idle = cluster.kubectl.run(&["top", "pod", "idle", "--no-headers"]).unwrap();
    assert!(idle.starts_with("idle"), "{idle}");
    let node = cluster.kubectl.run(&["top", "node", cluster.node.name(), "--no-headers"]).unwrap();
    assert!(node.starts_with(cluster.node.name()), "{node}");

    let scaled = |deployment: &Value| deployment["status"]["readyReplicas"] == 2;
    cluster.kubectl.until("deployment", "computes", "it is scaled", Deadline::seconds(60), scaled).unwrap();
    let autoscaler = cluster.kubectl.get("hpa", "computes").unwrap();
    let used = &autoscaler["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
    assert!(used.as_u64().unwrap() > 50, "{autoscaler}");
}

/// A Deployment of one replica, which asks for a tenth of a processor and uses all that it gets.
fn computing(cluster: &Cluster) -> Value {
    let mut spin = container("spin", "stay", &["spin"]);
    spin["resources"] = json!({ "requests": { "cpu": "100m" } });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "computes" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "computes" } },
            "template": {
                "metadata": { "labels": { "app": "computes" } },
                "spec": spec(cluster, "Always", &json!([spin])),
            },
        },
    })
}

fn autoscaler() -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "computes" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "computes" },
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": target } }],
        },
    })
}
