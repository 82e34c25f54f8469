//! Upstream's tables (`pkg/kubelet/lifecycle/predicate_test.go`).

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::node_info::NodeInfo;
use super::predicates::{check_node, general_filter};
use super::*;

fn pod(object: Value) -> Pod {
    serde_json::from_value(object).unwrap()
}

fn node(object: Value) -> Node {
    serde_json::from_value(object).unwrap()
}

/// A node that has ten thousandths of a processor, 20 bytes, and room for 32 pods.
fn machine1(spec: Value, labels: Value) -> Node {
    let all = json!({"cpu": "10m", "memory": "20", "pods": "32", "example.com/aaa": "0", "ephemeral-storage": "0",
        "hugepages-2Mi": "0"});
    node(json!({"metadata": {"name": "machine1", "labels": labels}, "spec": spec,
        "status": {"capacity": all, "allocatable": all}}))
}

fn asks_for(requests: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
}

fn filter(pod: &Pod, others: Vec<Pod>, node: &Node) -> Vec<PredicateFailure> {
    let others: Vec<_> = others.into_iter().map(Arc::new).collect();
    general_filter(&PodAdmitAttributes { pod, other_pods: &others, node: Some(node), runs: None }, 110)
}

fn insufficient(resource: &str, requested: i64, used: i64, capacity: i64) -> PredicateFailure {
    PredicateFailure::InsufficientResource { resource: resource.into(), requested, used, capacity }
}

#[test]
fn general_predicates() {
    let other = |spec: Value| vec![pod(json!({"metadata": {"uid": "other"}, "spec": spec}))];
    let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
    let no_execute = json!({"taints": [taint("foo", "NoSchedule"), taint("bar", "NoExecute")]});
    let wants_foo = json!({"containers": [], "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "foo", "operator": "Exists"}]}]}}}});
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 123}]}]});
    let plain = || machine1(json!({}), json!({}));
    let cases = [
        (
            "nothing is asked for",
            json!({"containers": []}),
            other(asks_for(json!({"cpu": "9m", "memory": "19"}))),
            plain(),
            vec!["ok"],
        ),
        (
            "not enough of two resources",
            asks_for(json!({"cpu": "8m", "memory": "10"})),
            other(asks_for(json!({"cpu": "5m", "memory": "19"}))),
            plain(),
            vec!["cpu 8 5 10", "memory 10 19 20"],
        ),
        (
            "another node",
            json!({"containers": [], "nodeName": "machine2"}),
            vec![],
            plain(),
            vec!["NodeName"],
        ),
        ("a port that is taken", port.clone(), other(port), plain(), vec!["NodePorts"]),
        (
            "tolerated taints",
            json!({"containers": [], "tolerations": [{"key": "foo"}, {"key": "bar"}]}),
            vec![],
            machine1(no_execute.clone(), json!({})),
            vec!["ok"],
        ),
        (
            "NoSchedule",
            json!({"containers": []}),
            vec![],
            machine1(json!({"taints": [taint("foo", "NoSchedule")]}), json!({})),
            vec!["ok"],
        ),
        (
            "NoExecute",
            json!({"containers": []}),
            vec![],
            machine1(no_execute, json!({})),
            vec!["TaintToleration"],
        ),
        (
            "PreferNoSchedule",
            json!({"containers": []}),
            vec![],
            machine1(json!({"taints": [taint("baz", "PreferNoSchedule")]}), json!({})),
            vec!["ok"],
        ),
        ("a label that is missing", wants_foo.clone(), vec![], plain(), vec!["NodeAffinity"]),
        (
            "a label that is there",
            wants_foo.clone(),
            vec![],
            machine1(json!({}), json!({"foo": "bar"})),
            vec!["ok"],
        ),
        (
            "two failures",
            {
                let mut spec = wants_foo;
                spec["nodeName"] = json!("some-node-name");
                spec
            },
            vec![],
            plain(),
            vec!["NodeAffinity", "NodeName"],
        ),
    ];
    for (name, spec, others, node, expected) in cases {
        let pod = pod(json!({"metadata": {"uid": "new"}, "spec": spec}));
        let failures = filter(&pod, others, &node);
        let short = |failure: &PredicateFailure| match failure {
            PredicateFailure::InsufficientResource { resource, requested, used, capacity } => {
                format!("{resource} {requested} {used} {capacity}")
            }
            PredicateFailure::Predicate { name, .. } => (*name).to_owned(),
        };
        let mut actual: Vec<String> = failures.iter().map(short).collect();
        if actual.is_empty() {
            actual.push("ok".into());
        }
        assert_eq!(actual, expected, "{name}");
    }
}

#[test]
fn static_pods_ignore_taints_and_nothing_else() {
    let taints = json!({"taints": [{"key": "bar", "effect": "NoExecute"}]});
    let of_file = |spec: Value| {
        pod(json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}, "spec": spec}))
    };
    let node = machine1(taints, json!({}));
    assert_eq!(filter(&of_file(json!({"containers": []})), vec![], &node), []);
    let failures = filter(&of_file(json!({"containers": [], "nodeName": "x"})), vec![], &node);
    assert!(matches!(failures[..], [PredicateFailure::Predicate { name: "NodeName", .. }]), "{failures:?}");
}

#[test]
fn extended_resources_count_where_a_node_knows_them() {
    let node =
        |allocatable: Value| node(json!({"metadata": {"name": "n"}, "status": {"allocatable": allocatable}}));
    let wants = pod(json!({"spec": asks_for(json!({"foo.com/bar": "1"}))}));
    let cases = [
        (json!({"pods": "9", "foo.com/bar": "1"}), vec![]),
        (json!({"pods": "9", "foo.com/baz": "1"}), vec![]),
        (json!({"pods": "9"}), vec![]),
        (json!({"pods": "9", "foo.com/bar": "0"}), vec![insufficient("foo.com/bar", 1, 0, 0)]),
    ];
    for (allocatable, expected) in cases {
        assert_eq!(filter(&wants, vec![], &node(allocatable.clone())), expected, "{allocatable}");
    }
    let limits = pod(json!({"spec": {"containers": [
        {"name": "c", "resources": {"limits": {"foo.com/bar": "1"}}}]}}));
    assert_eq!(filter(&limits, vec![], &node(json!({"pods": "9", "foo.com/bar": "0"}))), []);
    let pages = pod(json!({"spec": asks_for(json!({"hugepages-2Mi": "2Mi"}))}));
    let expected = [insufficient("hugepages-2Mi", 2 << 20, 0, 0)];
    assert_eq!(filter(&pages, vec![], &node(json!({"pods": "9"}))), expected, "these are the node's own");
}

#[test]
fn what_runs_and_what_is_added_to_a_pod_count() {
    let used = pod(json!({"metadata": {"uid": "other"}, "spec": asks_for(json!({"cpu": "1m"})), "status": {
        "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "6m"}}]}}));
    let mut spec = asks_for(json!({"cpu": "4m"}));
    let node = machine1(json!({}), json!({}));
    assert_eq!(filter(&pod(json!({"spec": spec})), vec![used.clone()], &node), []);
    spec["overhead"] = json!({"cpu": "1m"});
    let failures = filter(&pod(json!({"spec": spec})), vec![used], &node);
    assert_eq!(failures, [insufficient("cpu", 5, 6, 10)]);
}

#[test]
fn a_node_has_room_for_so_many_pods() {
    let one = pod(json!({"metadata": {"uid": "1"}, "spec": {"containers": []}}));
    let new = pod(json!({"metadata": {"uid": "new"}, "spec": {"containers": []}}));
    let full = node(json!({"status": {"allocatable": {"pods": "1"}}}));
    assert_eq!(filter(&new, vec![one.clone()], &full), [insufficient("pods", 1, 1, 1)]);
    assert_eq!(filter(&one, vec![one.clone()], &full), [], "it does not stand in its own way");
    let info = NodeInfo::new(None, [&one]);
    assert_eq!((info.pods, info.allowed_pods), (1, None));
    let others = [Arc::new(one)];
    let nowhere = PodAdmitAttributes { pod: &new, other_pods: &others, node: None, runs: None };
    assert_eq!(general_filter(&nowhere, 2), []);
    assert_eq!(general_filter(&nowhere, 1), [insufficient("pods", 1, 1, 1)]);
}

#[test]
fn pods_of_another_operating_system_are_refused() {
    let cases = [
        (json!({}), ""),
        (json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}}), ""),
        (
            json!({"metadata": {"labels": {"kubernetes.io/os": "dummyOS"}}}),
            "PodOSSelectorNodeLabelDoesNotMatch",
        ),
        (json!({"spec": {"containers": [], "os": {"name": "linux"}}}), ""),
        (json!({"spec": {"containers": [], "os": {"name": "windows"}}}), "PodOSNotSupported"),
    ];
    let node = node(json!({"metadata": {"labels": {"kubernetes.io/os": "dummyOS"}}}));
    for (object, expected) in cases {
        let pod = pod(object.clone());
        let attributes = PodAdmitAttributes { pod: &pod, other_pods: &[], node: Some(&node), runs: None };
        let reason = check_node(&attributes).err().map(|r| r.reason).unwrap_or_default();
        assert_eq!(reason, expected, "{object}");
    }
}

#[test]
fn strict_groups_need_a_node_that_has_them() {
    let cases = [
        (json!({}), json!(null), true),
        (json!({"supplementalGroupsPolicy": "Merge"}), json!(false), true),
        (json!({"supplementalGroupsPolicy": "Strict"}), json!(null), false),
        (json!({"supplementalGroupsPolicy": "Strict"}), json!(false), false),
        (json!({"supplementalGroupsPolicy": "Strict"}), json!(true), true),
    ];
    for (context, has, expected) in cases {
        let pod = pod(json!({"spec": {"containers": [], "securityContext": context}}));
        let node = node(json!({"status": {"features": {"supplementalGroupsPolicy": has}}}));
        let attributes = PodAdmitAttributes { pod: &pod, other_pods: &[], node: Some(&node), runs: None };
        assert_eq!(check_node(&attributes).is_ok(), expected, "{context} {has}");
    }
}

#[test]
fn failures_become_reasons_and_messages() {
    let cases = [
        (
            insufficient("cpu", 8, 5, 10),
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 8, used: 5, capacity: 10",
        ),
        (
            insufficient("pods", 1, 5, 5),
            "OutOfpods",
            "Node didn't have enough resource: pods, requested: 1, used: 5, capacity: 5",
        ),
        (
            insufficient("foo.com/bar", 1, 0, 0),
            "OutOffoo.com/bar",
            "Node didn't have enough resource: foo.com/bar, requested: 1, used: 0, capacity: 0",
        ),
        (
            PredicateFailure::Predicate { name: "NodePorts", description: "taken" },
            "NodePorts",
            "Predicate NodePorts failed: taken",
        ),
    ];
    for (failure, reason, message) in cases {
        let rejection = Rejection::from(&failure);
        assert_eq!((&*rejection.reason, &*rejection.message), (reason, message));
    }
}

#[test]
fn what_the_kernel_would_have_to_enforce_is_refused() {
    let with = |security: Value, annotations: Value, phase: &str| {
        pod(json!({"metadata": {"annotations": annotations},
        "spec": {"containers": [{"name": "c", "securityContext": security["container"]}],
            "securityContext": security["pod"]}, "status": {"phase": phase}}))
    };
    let profile = |kind: &str| json!({"appArmorProfile": {"type": kind}});
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let cases = [
        (json!({}), json!({}), "Pending", ""),
        (json!({"pod": profile("Unconfined")}), json!({}), "Pending", ""),
        (json!({"pod": profile("RuntimeDefault")}), json!({}), "Pending", "AppArmor"),
        (json!({"container": profile("Localhost")}), json!({}), "Pending", "AppArmor"),
        (json!({"pod": profile("RuntimeDefault")}), json!({}), "Running", ""),
        (json!({}), json!({key: "runtime/default"}), "Pending", "AppArmor"),
        (json!({}), json!({key: "unconfined"}), "Pending", ""),
        (
            json!({"pod": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            json!({}),
            "Pending",
            "SysctlForbidden",
        ),
    ];
    for (security, annotations, phase, expected) in cases {
        let refused = super::security::check(
            &with(security.clone(), annotations.clone(), phase),
            Some(coracle_provider::ArtifactKind::Wasm),
            true,
        );
        let reason = refused.err().map(|r| r.reason).unwrap_or_default();
        assert_eq!(reason, expected, "{security} {annotations} {phase}");
    }
}
