//! A node with containerd: Linux containers and WebAssembly side by side.

use std::fs;

use coracle_tests::cluster::Cluster;
use coracle_tests::containerd::{Containerd, linux_image};
use coracle_tests::registry::Registry;
use coracle_tests::wait;
use serde_json::{Value, json};

use crate::support::*;

/// A RuntimeClass for nodes that run both.
const CLASS: &str = r#"{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "wasm-beside"}, "handler": "wasm"}"#;

/// A node that runs both, and an image of Linux.
pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
    containerd: Containerd,
    pub(crate) image: String,
    _registry: Registry,
}

impl Bed {
    pub(crate) fn new(test: &str) -> Self {
        let registry = Registry::start().unwrap();
        let containerd = Containerd::start(&registry).unwrap();
        let image = registry.push(&linux_image(&["/bin/sh", "-c"]).unwrap(), "busybox", "v1").unwrap();
        let fields = json!({
            "containerRuntimeEndpoint": format!("unix://{}", containerd.socket().display()),
            "registerWithTaints": [],
            "cgroupRoot": containerd.cgroup_root(),
            "podPidsLimit": 500,
        });
        let cluster = Cluster::with_configuration(test, &fields).unwrap();
        cluster.kubectl.apply(CLASS).unwrap();
        Self { cluster, containerd, image, _registry: registry }
    }

    pub(crate) fn create(&self, name: &str, script: &str, more: &Value) {
        let mut spec = json!({
            "nodeSelector": { "kubernetes.io/hostname": self.cluster.node.name() },
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": self.image, "args": [script] }],
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        create(&self.cluster, name, &spec);
    }

    /// What a file of the control group of a guaranteed pod says; none if there is no such group.
    fn pod_limit(&self, pod: &Value, hierarchy: &str, file: &str) -> Option<String> {
        let group = format!("kubepods/pod{}", pod["metadata"]["uid"].as_str().unwrap());
        let mut groups = self.containerd.cgroups().into_iter();
        let root = groups.find(|root| root.parent().is_some_and(|top| top.ends_with(hierarchy)))?;
        fs::read_to_string(root.join(group).join(file)).ok().map(|text| text.trim().to_owned())
    }

    /// Everything that containerd has.
    fn containers(&self) -> Vec<String> {
        self.containerd.ctr(&["containers", "list", "--quiet"]).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn linux_containers_and_wasm_run_side_by_side() {
    let bed = Bed::new("containers");
    let (cluster, containerd) = (&bed.cluster, &bed.containerd);
    let node = cluster.kubectl.get("node", cluster.node.name()).unwrap();
    let runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap();
    assert!(runtime.starts_with("containerd://1."), "{runtime}");

    let script = "echo \"$GREETING from $(id -u)\"; echo \"$(cat /data/file)\"; sleep 1000000";
    let containers = json!([{
        "name": "main",
        "image": bed.image,
        "args": [script],
        "env": [{ "name": "GREETING", "value": "hello" }],
        "securityContext": { "runAsUser": 1234, "runAsNonRoot": true },
        "resources": { "limits": { "cpu": "200m", "memory": "64Mi" } },
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
    }]);
    cluster.kubectl.run(&["create", "configmap", "data", "--from-literal=file=content"]).unwrap();
    let volumes = json!([{ "name": "data", "configMap": { "name": "data" } }]);
    bed.create("linux", "", &json!({ "containers": containers, "volumes": volumes }));
    let wasm = json!({
        "runtimeClassName": "wasm-beside",
        "nodeSelector": { "kubernetes.io/hostname": cluster.node.name() },
        "containers": [container("main", "stay", &["sleep"])],
    });
    create(cluster, "wasm", &wasm);

    let linux = until_ready(cluster, "linux");
    let id = |pod: &Value| status_of(pod, "main")["containerID"].as_str().unwrap_or_default().to_owned();
    assert!(pod_ip(&linux).starts_with("10.231."), "{}", pod_ip(&linux));
    let wasm = until_ready(cluster, "wasm");
    assert!(
        id(&linux).starts_with("containerd://") && id(&wasm).starts_with("wasm://"),
        "{linux:#} {wasm:#}"
    );
    let logs = wait::eventually("the log", soon(), || {
        let logs = cluster.kubectl.run(&["logs", "linux"])?;
        if logs.contains("content") { Ok(logs) } else { anyhow::bail!("{logs}") }
    });
    let said = ["hello from 1234", "content"];
    assert_eq!(logs.unwrap().lines().collect::<Vec<_>>(), said);
    let info =
        containerd.ctr(&["containers", "info", id(&linux).trim_start_matches("containerd://")]).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["Labels"]["io.kubernetes.pod.name"], "linux");
    let resources = &info["Spec"]["linux"]["resources"];
    assert_eq!(
        (&resources["cpu"]["quota"], &resources["memory"]["limit"]),
        (&json!(20_000), &json!(64 << 20))
    );

    // On a machine with version 1, the groups can be looked at one by one.
    let has_v1 = fs::exists("/sys/fs/cgroup/memory/memory.stat").unwrap();
    let path = info["Spec"]["linux"]["cgroupsPath"].as_str().unwrap();
    let parent =
        format!("{}/kubepods/pod{}", containerd.cgroup_root(), linux["metadata"]["uid"].as_str().unwrap());
    assert!(path.starts_with(&parent), "{path} is not in {parent}");
    if has_v1 {
        let limit = |hierarchy, file| bed.pod_limit(&linux, hierarchy, file);
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(limit("memory", "memory.limit_in_bytes"), expected("67108864"));
        assert_eq!(limit("cpu", "cpu.cfs_quota_us"), expected("20000"));
        assert_eq!(limit("cpu", "cpu.shares"), expected("204"));
        assert_eq!(limit("pids", "pids.max"), expected("500"));
    }

    // What is killed is started again, and what it said before can still be read.
    containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", id(&linux).trim_start_matches("containerd://")])
        .unwrap();
    let again = until(cluster, "linux", "it runs again", |pod| {
        restarts(pod, "main") == 1 && status_of(pod, "main")["state"]["running"].is_object()
    });
    assert_eq!(status_of(&again, "main")["lastState"]["terminated"]["exitCode"], 137);
    let previous = cluster.kubectl.run(&["logs", "linux", "--previous"]).unwrap();
    assert_eq!(previous.lines().collect::<Vec<_>>(), said);

    cluster.kubectl.run(&["delete", "pod", "linux", "wasm"]).unwrap();
    let left = wait::eventually("nothing is left", soon(), || {
        let left = bed.containers();
        if left.is_empty() { Ok(()) } else { anyhow::bail!("{left:?}") }
    });
    left.unwrap();
    let groups = wait::eventually("no control group is left", soon(), || {
        let left = bed.pod_limit(&linux, "memory", "memory.limit_in_bytes");
        if left.is_none() { Ok(()) } else { anyhow::bail!("{left:?}") }
    });
    groups.unwrap();
    let addresses = fs::read_dir(containerd.folder().join("addresses/test")).unwrap().flatten();
    let addresses: Vec<_> =
        addresses.map(|it| it.file_name()).filter(|it| it.to_string_lossy().starts_with("10.")).collect();
    assert!(addresses.is_empty(), "{addresses:?}");
}

#[test]
fn containers_know_names_and_leave_last_words() {
    let bed = Bed::new("words");
    let more = json!({
        "restartPolicy": "Never", "hostname": "web-0", "subdomain": "web", "setHostnameAsFQDN": true,
        "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["db", "db.example"] }],
        "securityContext": { "runAsUser": 1234 },
    });
    bed.create("says", "cat /etc/hosts; busybox hostname; echo bye > /dev/termination-log; exit 3", &more);
    let pod = until_phase(&bed.cluster, "says", "Failed");
    let ended = &status_of(&pod, "main")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(3), &json!("bye\n")), "{ended}");
    let logs = bed.cluster.kubectl.run(&["logs", "says"]).unwrap();
    let lines: Vec<_> = logs.lines().collect();
    assert_eq!(lines[0], "# Kubernetes-managed hosts file.", "{logs}");
    let own = format!("{}\tweb-0.web.", pod_ip(&pod));
    assert!(lines.iter().any(|line| line.starts_with(&own) && line.ends_with("\tweb-0")), "{logs}");
    assert!(lines.contains(&"192.0.2.7\tdb\tdb.example"), "{logs}");
    assert!(lines.last().unwrap().starts_with("web-0.web."), "{logs}");

    // One that says nothing is known by its log, and what it said before it was started again is kept.
    let containers = json!([{
        "name": "main", "image": bed.image, "args": ["echo out of luck; exit 1"],
        "terminationMessagePath": "/tmp/last", "terminationMessagePolicy": "FallbackToLogsOnError",
    }]);
    bed.create("again", "", &json!({ "containers": containers }));
    until(&bed.cluster, "again", "its log is shown", |pod| {
        status_of(pod, "main")["lastState"]["terminated"]["message"] == "out of luck\n"
    });
    // On the node's network the names are the node's, and nothing that the container does changes those.
    let before = fs::read("/etc/hosts").unwrap();
    let more = json!({ "restartPolicy": "Never", "hostNetwork": true });
    bed.create("on-node", "busybox head -n 1 /etc/hosts; echo x > /etc/hosts", &more);
    assert_eq!(
        output_of(&bed.cluster, "on-node").trim_end(),
        "# Kubernetes-managed hosts file (host network)."
    );
    assert_eq!(fs::read("/etc/hosts").unwrap(), before);
}

#[test]
fn a_container_outlives_the_agent_and_the_daemon() {
    let mut bed = Bed::new("outlives");
    bed.create("stays", "sleep 1000000", &json!({}));
    let before = until_ready(&bed.cluster, "stays");
    bed.cluster.node.kill().unwrap();
    bed.containerd.kill().unwrap();
    bed.containerd.resume().unwrap();
    bed.cluster.node.resume().unwrap();
    bed.create("next", "sleep 1000000", &json!({}));
    until_ready(&bed.cluster, "next");
    let after = until_ready(&bed.cluster, "stays");
    assert_eq!(status_of(&after, "main")["containerID"], status_of(&before, "main")["containerID"]);
    assert_eq!(restarts(&after, "main"), 0);
}

#[test]
fn what_is_not_there_for_containers_is_refused_by_name() {
    let bed = Bed::new("refused");
    bed.create("users", "sleep 1", &json!({ "hostUsers": false }));
    let pod = until_phase(&bed.cluster, "users", "Failed");
    assert_eq!(pod["status"]["reason"], "PodFeatureUnsupported");
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.hostUsers: false is not supported"), "{message}");
    // A program that is not there is told, and tried again later.
    let containers = json!([{ "name": "main", "image": bed.image, "command": ["/no-such-program"] }]);
    bed.create("missing", "", &json!({ "containers": containers }));
    let message = until_event(&bed.cluster, "missing", "Failed");
    assert!(message.contains("/no-such-program"), "{message}");
}
