use serde_json::{Value, json};

use super::*;
use crate::ports::EventType;

fn settings() -> NodeSettings {
    NodeSettings {
        name: "n1".to_owned(),
        hostname: "host-1".to_owned(),
        architecture: "wasm32-wasi".to_owned(),
        labels: BTreeMap::from([("pool".to_owned(), "wasm".to_owned())]),
        taints: vec![Taint {
            key: "kubernetes.io/arch".to_owned(),
            value: Some("wasm32-wasi".to_owned()),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        }],
        controller_managed_attach: true,
        max_pods: 110,
        kubelet_version: "v1.37.2+coracle.0.1.0".to_owned(),
        container_runtime_version: "wasm://0.1.0".to_owned(),
        kubelet_port: 10250,
        ..NodeSettings::default()
    }
}

fn machine() -> MachineInfo {
    MachineInfo {
        cpus: 2,
        memory_bytes: 8 * 1024 * 1024 * 1024 - 4096,
        swap_bytes: 1024,
        root_fs_bytes: 100 * 1024 * 1024 * 1024,
        machine_id: "machine".to_owned(),
        system_uuid: "system".to_owned(),
        boot_id: "boot-1".to_owned(),
        kernel_version: "6.1.0".to_owned(),
        os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        architecture: "amd64".to_owned(),
        hostname: "host-1".to_owned(),
    }
}

fn state() -> NodeState {
    NodeState { addresses: vec!["10.0.0.7".parse().unwrap()], ..NodeState::default() }
}

fn node(settings: &NodeSettings, state: &NodeState) -> Node {
    initial_node(settings, &machine(), state)
}

fn json_of(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn condition_of<'a>(node: &'a Node, type_: &str) -> &'a NodeCondition {
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    conditions.iter().find(|condition| condition.type_ == type_).unwrap()
}

fn reasons(events: &[NodeEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.reason).collect()
}

#[test]
fn a_new_node_is_as_upstreams() {
    let node = node(&settings(), &state());
    assert_eq!(
        json_of(&node),
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "n1",
                "labels": {
                    "kubernetes.io/hostname": "host-1",
                    "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "wasm32-wasi", "beta.kubernetes.io/arch": "wasm32-wasi",
                    "pool": "wasm",
                },
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {"taints": [{"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoSchedule"}]},
            "status": {
                "capacity": {"cpu": "2", "memory": "8388604Ki", "ephemeral-storage": "100Gi", "pods": "110"},
                "allocatable": {"cpu": "2", "memory": "8388604Ki", "ephemeral-storage": "100Gi", "pods": "110"},
                "addresses": [
                    {"type": "InternalIP", "address": "10.0.0.7"},
                    {"type": "Hostname", "address": "host-1"},
                ],
                "nodeInfo": {
                    "machineID": "machine", "systemUUID": "system", "bootID": "boot-1", "kernelVersion": "6.1.0",
                    "osImage": "Debian GNU/Linux 12 (bookworm)", "containerRuntimeVersion": "wasm://0.1.0",
                    "kubeletVersion": "v1.37.2+coracle.0.1.0", "kubeProxyVersion": "",
                    "operatingSystem": "linux", "architecture": "wasm32-wasi", "swap": {"capacity": 1024},
                },
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "conditions": [
                    {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory",
                     "message": "kubelet has sufficient memory available"},
                    {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure",
                     "message": "kubelet has no disk pressure"},
                    {"type": "PIDPressure", "status": "False", "reason": "KubeletHasSufficientPID",
                     "message": "kubelet has sufficient PID available"},
                    {"type": "Ready", "status": "True", "reason": "KubeletReady",
                     "message": "kubelet is posting ready status"},
                ],
            },
        })
    );
}

#[test]
fn what_is_reserved_is_not_allocatable() {
    let reserved =
        Reserved { cpu_millis: 250, memory_bytes: 100 * 1024 * 1024, ephemeral_storage_bytes: u64::MAX };
    let node = node(&NodeSettings { reserved, ..settings() }, &state());
    assert_eq!(
        json_of(&node.status.unwrap().allocatable),
        json!({"cpu": "1750m", "memory": "8286204Ki", "ephemeral-storage": "0", "pods": "110"})
    );
}

#[test]
fn pods_are_limited_by_the_node_and_by_the_core() {
    for (max_pods, pods_per_core, expected) in
        [(110, 0, "110"), (110, 10, "20"), (10, 10, "10"), (10_000, 0, "10k")]
    {
        let settings = NodeSettings { max_pods, pods_per_core, ..settings() };
        let capacity = node(&settings, &state()).status.unwrap().capacity.unwrap();
        assert_eq!(capacity["pods"].0, expected);
    }
}

#[test]
fn conditions_say_what_is_wrong() {
    let error = |text: &str| text.to_owned();
    type Case = (NodeState, &'static str, &'static str, &'static str, &'static str);
    let table: [Case; 5] = [
        (
            NodeState { errors: vec![error("wasm: has not answered yet")], ..state() },
            "Ready",
            "False",
            "KubeletNotReady",
            "wasm: has not answered yet",
        ),
        (
            NodeState { errors: vec![error("a"), error("b")], ..state() },
            "Ready",
            "False",
            "KubeletNotReady",
            "[a, b]",
        ),
        (
            NodeState { memory_pressure: true, ..state() },
            "MemoryPressure",
            "True",
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        ),
        (
            NodeState { disk_pressure: true, ..state() },
            "DiskPressure",
            "True",
            "KubeletHasDiskPressure",
            "kubelet has disk pressure",
        ),
        (
            NodeState { pid_pressure: true, ..state() },
            "PIDPressure",
            "True",
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
        ),
    ];
    for (state, type_, status, reason, message) in table {
        let node = node(&settings(), &state);
        let condition = condition_of(&node, type_);
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_deref(), condition.message.as_deref()),
            (status, Some(reason), Some(message))
        );
    }
}

#[test]
fn images_are_the_largest_with_a_few_names() {
    let image = |name: &str, size| ContainerImage {
        names: Some((0..7).map(|tag| format!("{name}:{tag}")).collect()),
        size_bytes: Some(size),
    };
    let state = NodeState { images: vec![image("a", 1), image("b", 3), image("c", 2)], ..state() };
    let node = node(&NodeSettings { max_images: Some(2), ..settings() }, &state);
    let images = node.status.unwrap().images.unwrap();
    let names = |image: &ContainerImage| image.names.clone().unwrap();
    assert_eq!(images.iter().map(|i| names(i)[0].clone()).collect::<Vec<_>>(), ["b:0", "c:0"]);
    assert!(images.iter().all(|image| names(image).len() == 5));
}

#[test]
fn a_first_update_dates_the_conditions_and_tells_of_them() {
    let desired = node(&settings(), &state());
    let mut node = desired.clone();
    node.status = None;
    let events = update_node(&mut node, &desired, at(0));
    assert_eq!(
        reasons(&events),
        ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]
    );
    assert_eq!(events[0].message, "Node n1 status is now: NodeHasSufficientMemory");
    let ready = json_of(condition_of(&node, "Ready"));
    assert_eq!(ready["lastHeartbeatTime"], "2026-01-01T00:00:00Z");
    assert_eq!(ready["lastTransitionTime"], "2026-01-01T00:00:00Z");
}

#[test]
fn a_heartbeat_is_no_change_and_a_condition_that_turns_is() {
    let desired = node(&settings(), &state());
    let mut first = desired.clone();
    update_node(&mut first, &desired, at(0));

    let mut second = first.clone();
    assert_eq!(update_node(&mut second, &desired, at(10)), []);
    let (old, new) = (first.status.as_ref().unwrap(), second.status.as_ref().unwrap());
    assert!(!node_status_has_changed(old, new));
    assert_eq!(json_of(condition_of(&second, "Ready"))["lastHeartbeatTime"], "2026-01-01T00:00:10Z");
    assert_eq!(json_of(condition_of(&second, "Ready"))["lastTransitionTime"], "2026-01-01T00:00:00Z");

    let broken = node(&settings(), &NodeState { errors: vec!["down".to_owned()], ..state() });
    let mut third = second.clone();
    assert_eq!(reasons(&update_node(&mut third, &broken, at(20))), ["NodeNotReady"]);
    assert!(node_status_has_changed(new, third.status.as_ref().unwrap()));
    assert_eq!(json_of(condition_of(&third, "Ready"))["lastTransitionTime"], "2026-01-01T00:00:20Z");
    assert_eq!(reasons(&update_node(&mut third, &desired, at(30))), ["NodeReady"]);
}

#[test]
fn what_others_wrote_stays() {
    let mut existing: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"kubernetes.io/arch": "amd64", "theirs": "x"}},
        "status": {
            "capacity": {"example.com/gpu": "2", "hugepages-2Mi": "0", "cpu": "64"},
            "allocatable": {"example.com/gpu": "1", "example.com/gone": "1", "hugepages-2Mi": "0", "cpu": "64"},
            "conditions": [{"type": "NetworkUnavailable", "status": "False"}],
            "volumesAttached": [{"name": "v", "devicePath": "/dev/x"}],
            "nodeInfo": {"bootID": "boot-0", "machineID": "", "systemUUID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "v1",
                "operatingSystem": "linux", "architecture": "amd64"},
        },
    }))
    .unwrap();
    let events = update_node(&mut existing, &node(&settings(), &state()), at(0));
    assert_eq!(events[0].event_type, EventType::Warning);
    assert_eq!(events[0].message, "Node n1 has been rebooted, boot id: boot-1");

    let labels = existing.metadata.labels.clone().unwrap();
    assert_eq!((labels["kubernetes.io/arch"].as_str(), labels["theirs"].as_str()), ("wasm32-wasi", "x"));
    let status = json_of(&existing.status);
    let resources = json!({"cpu": "2", "memory": "8388604Ki", "ephemeral-storage": "100Gi", "pods": "110",
        "example.com/gpu": "2"});
    assert_eq!((&status["capacity"], &status["allocatable"]), (&resources, &resources));
    assert_eq!(status["conditions"][0]["type"], "NetworkUnavailable");
    assert_eq!(status["conditions"].as_array().unwrap().len(), 5);
    assert_eq!(status["volumesAttached"][0]["name"], "v");
    assert_eq!(status["nodeInfo"]["kubeProxyVersion"], "");
}

#[test]
fn a_node_that_exists_takes_over_default_labels_and_no_others() {
    let mut settings = settings();
    settings.labels.insert("topology.kubernetes.io/zone".to_owned(), "z2".to_owned());
    settings.labels.insert("beta.kubernetes.io/instance-type".to_owned(), String::new());
    let mut existing: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {
        "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "z1", "pool": "old",
        "beta.kubernetes.io/instance-type": "m1", "theirs": "x"}}}))
    .unwrap();
    let desired = node(&settings, &state());
    assert!(update_default_labels(&mut existing, &desired));
    assert_eq!(
        json_of(&existing.metadata),
        json!({
            "name": "n1",
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            "labels": {
                "kubernetes.io/hostname": "host-1", "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "wasm32-wasi", "beta.kubernetes.io/arch": "wasm32-wasi",
                "topology.kubernetes.io/zone": "z2", "pool": "old", "theirs": "x",
            },
        })
    );
    assert!(!update_default_labels(&mut existing, &desired));
    let detached = node(&NodeSettings { controller_managed_attach: false, ..settings }, &state());
    assert!(update_default_labels(&mut existing, &detached));
    assert_eq!(existing.metadata.annotations.unwrap(), BTreeMap::new());
}

#[test]
fn declared_features_are_in_order() {
    let features = ["B", "A", "B"].map(str::to_owned).to_vec();
    let node = node(&NodeSettings { declared_features: features, ..settings() }, &state());
    assert_eq!(node.status.unwrap().declared_features.unwrap(), ["A", "B"]);
}
