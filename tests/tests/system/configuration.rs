//! What reaches a guest: environment and files.

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;
use serde_json::json;

use crate::support::{ask, container, create, http_container, output_of, pod_ip, soon, spec, until_ready};

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { greeting: good morning, mood: fine }
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { password: open sesame }
";

#[test]
fn the_environment_comes_from_everywhere() {
    let cluster = Cluster::new("environment").unwrap();
    cluster.kubectl.apply(OBJECTS).unwrap();
    let mut main = container("main", "env", &[]);
    main["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "250m" } });
    main["envFrom"] = json!([
        { "prefix": "MAP_", "configMapRef": { "name": "settings" } },
        { "configMapRef": { "name": "absent", "optional": true } },
    ]);
    main["env"] = json!([
        { "name": "PLAIN", "value": "text" },
        { "name": "JOINED", "value": "$(PLAIN)-$(PASSWORD) $$(PLAIN) $(ABSENT)" },
        { "name": "KEY", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "greeting" } } },
        { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "password" } } },
        { "name": "NONE", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "none", "optional": true } } },
        { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
        { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
        { "name": "LATE", "value": "$(PASSWORD)" },
    ]);
    create(&cluster, "env", &spec(&cluster, "Never", &json!([main])));
    let output = output_of(&cluster, "env");
    let ip = pod_ip(&cluster.kubectl.get("pod", "env").unwrap());
    for line in [
        "PLAIN=text",
        // A reference sees only what stands before it; what it does not find, it leaves.
        "JOINED=text-$(PASSWORD) $(PLAIN) $(ABSENT)",
        "LATE=open sesame",
        "MAP_greeting=good morning",
        "MAP_mood=fine",
        "KEY=good morning",
        "PASSWORD=open sesame",
        "NAME=env",
        "HOSTNAME=env",
        &format!("NAMESPACE={}", cluster.name),
        &format!("IP={ip}"),
        &format!("NODE={}", cluster.node.name()),
        "MEMORY=64",
        "KUBERNETES_SERVICE_PORT=443",
    ] {
        assert!(output.lines().any(|found| found == line), "`{line}` is missing:\n{output}");
    }
    assert!(!output.contains("NONE="), "{output}");
}

#[test]
fn volumes_of_every_plain_kind_are_mounted() {
    let cluster = Cluster::new("volumes").unwrap();
    cluster.kubectl.apply(OBJECTS).unwrap();
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut main = container(
        "main",
        "files",
        &[
            "cat",
            "/settings/greeting",
            "ls",
            "/keys",
            "cat",
            "/labels/labels",
            "ls",
            "/all",
            "cat",
            "/one",
            "ls",
            account,
            "cat",
            &format!("{account}/namespace"),
        ],
    );
    main["volumeMounts"] = json!([
        { "name": "settings", "mountPath": "/settings" },
        { "name": "keys", "mountPath": "/keys", "readOnly": true },
        { "name": "labels", "mountPath": "/labels" },
        { "name": "all", "mountPath": "/all" },
        { "name": "settings", "mountPath": "/one", "subPath": "mood" },
    ]);
    let mut spec = spec(&cluster, "Never", &json!([main]));
    spec["volumes"] = json!([
        { "name": "settings", "configMap": { "name": "settings" } },
        { "name": "keys", "secret": { "secretName": "keys" } },
        { "name": "labels", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        ] } },
        { "name": "all", "projected": { "sources": [
            { "configMap": { "name": "settings" } },
            { "secret": { "name": "keys" } },
        ] } },
    ]);
    create(&cluster, "volumes", &spec);
    let expected = format!(
        "good morningpassword\napp=\"volumes\"greeting\nmood\npassword\nfineca.crt\nnamespace\ntoken\n{}",
        cluster.name
    );
    assert_eq!(output_of(&cluster, "volumes"), expected);
}

#[test]
fn read_only_mounts_cannot_be_written() {
    let cluster = Cluster::new("read-only").unwrap();
    cluster.kubectl.apply(OBJECTS).unwrap();
    for (name, volume, read_only) in [
        ("config-map", json!({ "name": "v", "configMap": { "name": "settings" } }), false),
        ("empty-dir", json!({ "name": "v", "emptyDir": {} }), true),
    ] {
        let mut main = container("main", "files", &["write", "/v/greeting", "overwritten"]);
        main["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v", "readOnly": read_only }]);
        let mut spec = spec(&cluster, "Never", &json!([main]));
        spec["volumes"] = json!([volume]);
        create(&cluster, name, &spec);
        crate::support::until_phase(&cluster, name, "Failed");
    }
}

#[test]
fn containers_of_a_pod_share_an_empty_dir_and_it_survives_their_restarts() {
    let cluster = Cluster::new("empty-dir").unwrap();
    let mount = json!([{ "name": "work", "mountPath": "/work" }]);
    let mut writer = container("writer", "files", &["append", "/work/log", "x"]);
    writer["volumeMounts"] = mount.clone();
    let mut reader = http_container("reader");
    reader["volumeMounts"] = mount;
    let mut spec = spec(&cluster, "Always", &json!([writer, reader]));
    spec["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
    create(&cluster, "shared", &spec);
    let ip = wait::eventually("an address", soon(), || {
        let pod = cluster.kubectl.get("pod", "shared")?;
        pod["status"]["podIP"].as_str().map(str::to_owned).ok_or_else(|| anyhow::anyhow!("none yet"))
    });
    let ip = ip.unwrap();
    let twice = || {
        coracle_tests::http::get(&format!("http://{ip}:8080/file/work/log")).is_ok_and(|it| it.body == "xx")
    };
    wait::until("the writer has run twice", soon(), twice).unwrap();
}

#[test]
fn a_changed_config_map_reaches_a_running_guest() {
    let cluster = Cluster::new("changes").unwrap();
    cluster.kubectl.apply(OBJECTS).unwrap();
    let mut main = http_container("http");
    main["volumeMounts"] = json!([{ "name": "settings", "mountPath": "/settings" }]);
    let mut spec = spec(&cluster, "Always", &json!([main]));
    spec["volumes"] = json!([{ "name": "settings", "configMap": { "name": "settings" } }]);
    create(&cluster, "reader", &spec);
    let ip = pod_ip(&until_ready(&cluster, "reader"));
    assert_eq!(ask(&ip, "/file/settings/greeting").body, "good morning");
    cluster
        .kubectl
        .run(&["patch", "configmap", "settings", "--patch", r#"{"data":{"greeting":"good evening"}}"#])
        .unwrap();
    let changed = || ask(&ip, "/file/settings/greeting").body == "good evening";
    wait::until("the file has changed", coracle_tests::wait::Deadline::seconds(120), changed).unwrap();
}
