//! Pods of a node's own manifests, and how the cluster sees them.

use std::fs;
use std::path::PathBuf;

use coracle_tests::cluster::Cluster;
use coracle_tests::node;
use coracle_tests::scratch::Scratch;
use serde_json::{Value, json};

use crate::support::{ask, container, http_container, pod_ip, soon, until, until_phase, until_ready};

/// A cluster whose node reads this folder.
fn start(test: &str) -> (Cluster, Scratch) {
    let manifests = Scratch::new("manifests").unwrap();
    let cluster = Cluster::with_configuration(test, &json!({ "staticPodPath": manifests.path() })).unwrap();
    (cluster, manifests)
}

/// A pod in the test's namespace; what needs the cluster is not for it.
fn manifest(cluster: &Cluster, name: &str, containers: &Value) -> String {
    let metadata = json!({ "name": name, "namespace": cluster.kubectl.namespace() });
    let spec = json!({ "terminationGracePeriodSeconds": 2, "containers": containers });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string()
}

/// Writes a manifest as configuration management does: whole or not at all.
fn write(manifests: &Scratch, file: &str, manifest: &str) -> PathBuf {
    let (new, path) = (manifests.join(format!(".{file}.new")), manifests.join(file));
    fs::write(&new, manifest).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn a_static_pod_is_seen_by_the_cluster_and_ruled_by_its_file() {
    let (cluster, manifests) = start("static");
    let name = format!("web-{}", cluster.node.name());
    write(&manifests, "broken.yaml", "kind: [unfinished");
    let path = write(&manifests, "web.yaml", &manifest(&cluster, "web", &json!([http_container("http")])));

    let mirror = until_ready(&cluster, &name);
    assert_eq!(ask(&pod_ip(&mirror), "/").status, 200);
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert!(cluster.node.log().contains("broken.yaml"), "a manifest that cannot be read is told");

    // Whoever deletes the mirror deletes no pod.
    let started = mirror["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone();
    cluster.kubectl.run(&["delete", "pod", &name, "--wait=false"]).unwrap();
    let again = until(&cluster, &name, "another mirror is Ready", |pod| {
        uid(pod) != uid(&mirror) && node::condition(pod, "Ready") == Some("True")
    });
    assert_eq!(again["status"]["containerStatuses"][0]["state"]["running"]["startedAt"], started);
    assert_eq!(pod_ip(&again), pod_ip(&mirror));

    // Another manifest is another pod.
    write(&manifests, "web.yaml", &manifest(&cluster, "web", &json!([container("main", "stay", &[])])));
    let changed = until(&cluster, &name, "the new pod runs", |pod| {
        pod["spec"]["containers"][0]["name"] == "main" && pod["status"]["phase"] == "Running"
    });
    assert_ne!(
        changed["metadata"]["annotations"]["kubernetes.io/config.hash"],
        annotations["kubernetes.io/config.hash"]
    );

    fs::remove_file(path).unwrap();
    cluster.kubectl.until_gone("pod", &name, soon()).unwrap();
}

#[test]
fn a_static_pod_outlives_its_agent_under_the_same_mirror() {
    let (mut cluster, manifests) = start("static-restart");
    let name = format!("stay-{}", cluster.node.name());
    write(&manifests, "stay.yaml", &manifest(&cluster, "stay", &json!([container("main", "stay", &[])])));
    let before = until_phase(&cluster, &name, "Running");
    cluster.node.kill().unwrap();
    cluster.node.resume().unwrap();
    let after = until(&cluster, &name, "it runs again", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1 && pod["status"]["phase"] == "Running"
    });
    assert_eq!(uid(&after), uid(&before), "the mirror stays");
    assert_eq!(after["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
}
