//! What cannot run says why in upstream's words, on the container and as an event; and no other pod notices.

use coracle_tests::artifact::Artifact;
use coracle_tests::cluster::Cluster;
use coracle_tests::guests;
use coracle_tests::registry::Registry;
use serde_json::{Value, json};

use crate::support::{
    ask, container, create, restarts, serve, soon, spec, status_of, until, until_event, waits_for,
};

/// The neighbour of all the pods that fail here.
struct Witness<'a> {
    cluster: &'a Cluster,
    ip: String,
}

impl<'a> Witness<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, ip: serve(cluster, "witness") }
    }

    #[track_caller]
    fn saw_nothing(&self) {
        assert_eq!(ask(&self.ip, "/well").body, "hello from wasm: /well\n");
        let pod = self.cluster.kubectl.get("pod", "witness").unwrap();
        assert_eq!(restarts(&pod, "http"), 0);
        assert_eq!(coracle_tests::node::condition(&pod, "Ready"), Some("True"));
    }
}

/// Waits until the container waits for one of these reasons, and gives the message.
#[track_caller]
fn until_waiting(cluster: &Cluster, name: &str, reasons: &[&str]) -> String {
    let pod = until(cluster, name, &reasons.join(" or "), |pod| reasons.contains(&waits_for(pod, "main")));
    status_of(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn artifacts_that_are_no_modules() {
    let cluster = Cluster::new("no-modules").unwrap();
    let witness = Witness::new(&cluster);
    let registry = Registry::start().unwrap();
    let hello = guests::bytes("hello").unwrap();
    for (name, bytes, word) in [
        ("text", b"this is no module".to_vec(), "neither a webassembly module nor a component"),
        ("empty", Vec::new(), "neither a webassembly module nor a component"),
        ("half", hello[..hello.len() / 2].to_vec(), "damaged"),
        ("native", guests::native_code(), "native code"),
    ] {
        let reference = registry.push(&Artifact::wasm(&bytes, "wasip1"), name, "v1").unwrap();
        create(&cluster, name, &spec(&cluster, "Never", &json!([{ "name": "main", "image": reference }])));
        let message = until_waiting(&cluster, name, &["ErrImagePull", "ImagePullBackOff"]);
        assert!(message.to_lowercase().contains(word), "{name}: {message}");
        let event = until_event(&cluster, name, "Failed");
        assert!(event.contains(&reference), "{name}: {event}");
    }
    witness.saw_nothing();
}

#[test]
fn a_module_whose_imports_nobody_provides() {
    let cluster = Cluster::new("imports").unwrap();
    let witness = Witness::new(&cluster);
    create(&cluster, "imports", &spec(&cluster, "Never", &json!([container("main", "imports", &[])])));
    let mut message = String::new();
    until(&cluster, "imports", "it names the import", |pod| {
        let state = &status_of(pod, "main")["state"];
        message = format!("{state}");
        message.contains("coracle:test/absent")
    });
    until_event(&cluster, "imports", "Failed");
    witness.saw_nothing();
}

#[test]
fn references_to_what_is_not_there_are_awaited() {
    let cluster = Cluster::new("references").unwrap();
    let witness = Witness::new(&cluster);
    let mut main = container("main", "env", &["A"]);
    main["env"] =
        json!([{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "late", "key": "a" } } }]);
    create(&cluster, "env", &spec(&cluster, "Never", &json!([main])));
    let message = until_waiting(&cluster, "env", &["CreateContainerConfigError"]);
    assert!(message.ends_with("\"late\" not found"), "{message}");
    until_event(&cluster, "env", "Failed");

    let mut main = container("main", "files", &["cat", "/late/a"]);
    main["volumeMounts"] = json!([{ "name": "late", "mountPath": "/late" }]);
    let mut with_volume = spec(&cluster, "Never", &json!([main]));
    with_volume["volumes"] = json!([{ "name": "late", "configMap": { "name": "late" } }]);
    create(&cluster, "volume", &with_volume);
    assert!(until_event(&cluster, "volume", "FailedMount").contains("\"late\" not found"));
    let pod = cluster.kubectl.get("pod", "volume").unwrap();
    assert_eq!(waits_for(&pod, "main"), "ContainerCreating");
    witness.saw_nothing();

    cluster.kubectl.run(&["create", "configmap", "late", "--from-literal=a=here"]).unwrap();
    for (name, output) in [("env", "A=here\n"), ("volume", "here")] {
        let done = cluster.kubectl.until(
            "pod",
            name,
            "it succeeds",
            coracle_tests::wait::Deadline::seconds(150),
            |pod| pod["status"]["phase"] == "Succeeded",
        );
        done.unwrap();
        assert_eq!(cluster.kubectl.run(&["logs", name]).unwrap(), output);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cluster = Cluster::new("unsupported").unwrap();
    let witness = Witness::new(&cluster);
    for (name, field, value) in [
        ("devices", "volumeDevices", json!([{ "name": "disk", "devicePath": "/dev/disk" }])),
        ("privileged", "securityContext", json!({ "privileged": true })),
    ] {
        let mut main = container("main", "hello", &[]);
        main[field] = value;
        let mut spec = spec(&cluster, "Always", &json!([main]));
        if field == "volumeDevices" {
            spec["volumes"] = json!([{ "name": "disk", "persistentVolumeClaim": { "claimName": "disk" } }]);
            // The scheduler would wait for the claim.
            spec["nodeName"] = json!(cluster.node.name());
        }
        refused(&cluster, name, &spec, field);
    }
    let mut claim = spec(&cluster, "Always", &json!([container("main", "hello", &[])]));
    claim["volumes"] = json!([{ "name": "disk", "nfs": { "server": "192.0.2.77", "path": "/" } }]);
    refused(&cluster, "volume", &claim, "nfs");
    let mut host = spec(&cluster, "Always", &json!([container("main", "hello", &[])]));
    host["hostPID"] = json!(true);
    refused(&cluster, "host", &host, "hostPID");
    witness.saw_nothing();
}

/// Creates a pod and expects that it fails at once, with a message that names this, and that it never ran.
#[track_caller]
fn refused(cluster: &Cluster, name: &str, spec: &Value, word: &str) {
    create(cluster, name, spec);
    let pod = until(cluster, name, "it is refused", |pod| pod["status"]["phase"] == "Failed");
    let message = pod["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(word), "{name}: {:#}", pod["status"]);
    assert_eq!(pod["status"]["reason"], "PodFeatureUnsupported");
    assert!(status_of(&pod, "main")["state"]["running"].is_null());
    assert!(until_event(cluster, name, "PodFeatureUnsupported").contains(word));
}

#[test]
fn a_container_for_linux_is_not_run_as_wasm() {
    let cluster = Cluster::new("linux-image").unwrap();
    let registry = Registry::start().unwrap();
    let mut artifact = Artifact::docker(b"#!/bin/sh\n", "/bin/sh").unwrap();
    let config = String::from_utf8(artifact.config.bytes.clone()).unwrap();
    artifact.config.bytes =
        config.replace("\"wasm\"", "\"amd64\"").replace("\"wasip1\"", "\"linux\"").into_bytes();
    let reference = registry.push(&artifact, "busybox", "v1").unwrap();
    create(&cluster, "linux", &spec(&cluster, "Never", &json!([{ "name": "main", "image": reference }])));
    let message = until_waiting(&cluster, "linux", &["ErrImagePull", "ImagePullBackOff"]);
    assert!(message.to_lowercase().contains("wasm"), "{message}");
    cluster.kubectl.run(&["delete", "pod", "linux", "--wait=false"]).unwrap();
    cluster.kubectl.until_gone("pod", "linux", soon()).unwrap();
}
