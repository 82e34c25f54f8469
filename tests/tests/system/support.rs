//! What the tests in a cluster share: images, manifests, and questions to a pod's status.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use coracle_tests::cluster::Cluster;
use coracle_tests::registry::Registry;
use coracle_tests::wait::Deadline;
use coracle_tests::{http, wait};
use serde_json::{Value, json};

/// How long the agent may take for what takes it milliseconds, on a busy machine.
pub(crate) fn soon() -> Deadline {
    Deadline::seconds(45)
}

/// The reference of a guest in the registry that all tests share.
pub(crate) fn image(guest: &str) -> String {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::start().unwrap());
    static PUSHED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut pushed = PUSHED.lock().unwrap();
    pushed.entry(guest.to_owned()).or_insert_with(|| REGISTRY.push_guest(guest).unwrap()).clone()
}

/// A container of a guest.
pub(crate) fn container(name: &str, guest: &str, args: &[&str]) -> Value {
    json!({ "name": name, "image": image(guest), "args": args })
}

/// A container that serves HTTP on 8080.
pub(crate) fn http_container(name: &str) -> Value {
    json!({
        "name": name,
        "image": image("http"),
        "ports": [{ "name": "http", "containerPort": 8080 }],
    })
}

/// The spec of a pod on the test's node.
pub(crate) fn spec(cluster: &Cluster, restart_policy: &str, containers: &Value) -> Value {
    json!({
        "runtimeClassName": "wasm",
        "nodeSelector": { "kubernetes.io/hostname": cluster.node.name() },
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": 2,
        "containers": containers,
    })
}

/// A pod of this spec.
pub(crate) fn pod(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } }, "spec": spec })
}

/// Creates a pod.
pub(crate) fn create(cluster: &Cluster, name: &str, spec: &Value) {
    cluster.kubectl.create(&pod(name, spec).to_string()).unwrap();
}

/// Creates a pod that serves HTTP, waits until it is Ready, and gives its address.
pub(crate) fn serve(cluster: &Cluster, name: &str) -> String {
    create(cluster, name, &spec(cluster, "Always", &json!([http_container("http")])));
    pod_ip(&until_ready(cluster, name))
}

/// Waits until a pod is as wished.
#[track_caller]
pub(crate) fn until(cluster: &Cluster, name: &str, what: &str, wish: impl FnMut(&Value) -> bool) -> Value {
    cluster.kubectl.until("pod", name, what, soon(), wish).unwrap()
}

/// Waits until a pod is Ready.
#[track_caller]
pub(crate) fn until_ready(cluster: &Cluster, name: &str) -> Value {
    until(cluster, name, "it is Ready", |pod| coracle_tests::node::condition(pod, "Ready") == Some("True"))
}

/// Waits until a pod has this phase.
#[track_caller]
pub(crate) fn until_phase(cluster: &Cluster, name: &str, phase: &str) -> Value {
    until(cluster, name, phase, |pod| pod["status"]["phase"] == phase)
}

/// Waits until a pod has ended, and gives what its container printed.
#[track_caller]
pub(crate) fn output_of(cluster: &Cluster, name: &str) -> String {
    let pod = until(cluster, name, "it has ended", |pod| {
        pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
    });
    let output = cluster.kubectl.run(&["logs", name]).unwrap();
    assert_eq!(pod["status"]["phase"], "Succeeded", "{:#}\n{output}", pod["status"]);
    output
}

/// The address of a pod.
pub(crate) fn pod_ip(pod: &Value) -> String {
    pod["status"]["podIP"].as_str().unwrap_or_else(|| panic!("no address: {:#}", pod["status"])).to_owned()
}

/// The status of a container; null before there is one.
pub(crate) fn status_of<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let statuses =
        ["containerStatuses", "initContainerStatuses"].map(|field| pod["status"][field].as_array());
    let found = statuses.into_iter().flatten().flatten().find(|status| status["name"] == container);
    found.unwrap_or(&Value::Null)
}

/// Why a container waits; empty if it does not.
pub(crate) fn waits_for<'a>(pod: &'a Value, container: &str) -> &'a str {
    status_of(pod, container)["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

/// How often a container was started again.
pub(crate) fn restarts(pod: &Value, container: &str) -> u64 {
    status_of(pod, container)["restartCount"].as_u64().unwrap_or_default()
}

/// What a path of a pod that serves HTTP answers, once it does.
#[track_caller]
pub(crate) fn ask(ip: &str, path: &str) -> http::Answer {
    wait::eventually("an answer", soon(), || http::get(&format!("http://{ip}:8080{path}"))).unwrap()
}

/// Waits for an event with this reason about a pod, and gives its message.
#[track_caller]
pub(crate) fn until_event(cluster: &Cluster, pod: &str, reason: &str) -> String {
    wait::eventually(&format!("event {reason}"), soon(), || {
        let events = cluster.kubectl.events("Pod", pod)?;
        let found = events.iter().find(|(found, _)| found == reason).map(|(_, message)| message.clone());
        found.ok_or_else(|| anyhow::anyhow!("events so far: {events:?}"))
    })
    .unwrap()
}
