//! Resources that change while a pod runs, and rules that restart all of it.

use coracle_tests::cluster::Cluster;
use serde_json::{Value, json};

use crate::support::{container, create, http_container, restarts, spec, status_of, until, until_ready};

fn resources(cpu: &str, memory: &str) -> Value {
    let list = json!({ "cpu": cpu, "memory": memory });
    json!({ "requests": list, "limits": list })
}

/// Creates a pod that serves HTTP, which is restarted if its CPU changes.
fn serve(cluster: &Cluster, name: &str, cpu_policy: &str) {
    let mut http = http_container("http");
    http["resources"] = resources("10m", "64Mi");
    http["resizePolicy"] = json!([{ "resourceName": "cpu", "restartPolicy": cpu_policy }]);
    create(cluster, name, &spec(cluster, "Always", &json!([http])));
    until_ready(cluster, name);
}

fn resize(cluster: &Cluster, name: &str, cpu: &str, memory: &str) {
    let patch =
        json!({ "spec": { "containers": [{ "name": "http", "resources": resources(cpu, memory) }] } });
    cluster
        .kubectl
        .run(&["patch", "pod", name, "--subresource=resize", "--patch", &patch.to_string()])
        .unwrap();
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn memory_changes_while_a_pod_runs_and_processors_with_a_restart() {
    let cluster = Cluster::new("resize").unwrap();
    serve(&cluster, "live", "NotRequired");
    let limits = |pod: &Value| status_of(pod, "http")["resources"]["limits"].clone();

    resize(&cluster, "live", "10m", "128Mi");
    let pod = until(&cluster, "live", "it has more memory", |pod| limits(pod)["memory"] == "128Mi");
    assert_eq!(restarts(&pod, "http"), 0);
    assert_eq!(status_of(&pod, "http")["allocatedResources"]["memory"], "128Mi");
    until(&cluster, "live", "it is over", |pod| condition(pod, "PodResizeInProgress").is_null());

    resize(&cluster, "live", "20m", "128Mi");
    let pod = until(&cluster, "live", "it is refused", |pod| {
        condition(pod, "PodResizePending")["reason"] == "Infeasible"
    });
    let message = condition(&pod, "PodResizePending")["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Resize of cpu is infeasible for container http: the wasm runtime"),
        "{message}"
    );
    assert_eq!(limits(&pod)["cpu"], "10m");

    serve(&cluster, "restarted", "RestartContainer");
    resize(&cluster, "restarted", "20m", "64Mi");
    until(&cluster, "restarted", "it has more processors", |pod| {
        restarts(pod, "http") == 1 && limits(pod)["cpu"] == "20m"
    });
}

#[test]
fn one_exit_restarts_all_containers() {
    let cluster = Cluster::new("restart-all").unwrap();
    let mut source = container("source", "exit", &["42"]);
    source["restartPolicy"] = json!("Never");
    source["restartPolicyRules"] =
        json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let containers = json!([source, container("other", "stay", &[])]);
    create(&cluster, "all", &spec(&cluster, "Never", &containers));
    let pod = until(&cluster, "all", "both are restarted", |pod| {
        restarts(pod, "source") >= 1 && restarts(pod, "other") >= 1
    });
    assert_ne!(pod["status"]["phase"], "Failed");
}
