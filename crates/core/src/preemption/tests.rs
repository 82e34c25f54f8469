//! Upstream's tables (`pkg/kubelet/preemption/preemption_test.go`).

use serde_json::{Value, json};

use super::*;

const MEBI: i64 = 1 << 20;

/// The pods of upstream's tests by name.
fn pod(name: &str) -> Arc<Pod> {
    let (requests, limited, priority) = match name {
        "tiny" => (json!({"cpu": "1m", "memory": "1Mi"}), false, None),
        "best-effort" => (json!({}), false, None),
        "burstable" => (json!({"cpu": "100m", "memory": "100Mi"}), false, None),
        "guaranteed" => (json!({"cpu": "100m", "memory": "100Mi"}), true, None),
        "high-burstable" => (json!({"cpu": "300m", "memory": "300Mi"}), false, None),
        "high-guaranteed" => (json!({"cpu": "300m", "memory": "300Mi"}), true, None),
        "cluster-critical" => {
            (json!({"cpu": "100m", "memory": "100Mi"}), false, Some(SYSTEM_CRITICAL_PRIORITY))
        }
        "node-critical" => {
            (json!({"cpu": "100m", "memory": "100Mi"}), false, Some(SYSTEM_CRITICAL_PRIORITY + 100))
        }
        other => panic!("no pod {other}"),
    };
    Arc::new(with_requests(name, requests, limited, priority))
}

fn with_requests(name: &str, requests: Value, limited: bool, priority: Option<i32>) -> Pod {
    let limits = limited.then(|| requests.clone());
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "generation": 3}, "spec": {
        "priority": priority,
        "containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}}))
    .unwrap()
}

fn missing(cpu: i64, memory: i64, pods: i64) -> Requirements {
    let all = [("cpu", cpu), ("memory", memory * MEBI), ("pods", pods)];
    let asked = all.into_iter().filter(|(_, amount)| *amount > 0);
    Requirements(asked.map(|(r, amount)| Requirement { resource: r.into(), amount }).collect())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    let mut names: Vec<&str> = pods.iter().map(|p| p.name()).collect();
    names.sort_unstable();
    names
}

#[test]
fn get_pods_to_preempt() {
    const ALL: [&str; 5] = ["best-effort", "burstable", "high-burstable", "guaranteed", "high-guaranteed"];
    type Case = (
        &'static str,
        &'static str,
        &'static [&'static str],
        (i64, i64, i64),
        Option<&'static [&'static str]>,
    );
    let cases: [Case; 12] = [
        ("no requirements", "cluster-critical", &[], (0, 0, 0), Some(&[])),
        ("no pods", "cluster-critical", &[], (0, 0, 1), None),
        ("just enough", "cluster-critical", &["burstable"], (100, 100, 1), Some(&["burstable"])),
        ("too little", "cluster-critical", &["burstable"], (200, 200, 2), None),
        (
            "best effort first",
            "cluster-critical",
            &["burstable", "best-effort"],
            (0, 0, 1),
            Some(&["best-effort"]),
        ),
        (
            "guaranteed last",
            "cluster-critical",
            &["burstable", "guaranteed"],
            (0, 0, 1),
            Some(&["burstable"]),
        ),
        (
            "the smaller one that will do",
            "cluster-critical",
            &["best-effort", "high-burstable", "burstable"],
            (100, 100, 0),
            Some(&["burstable"]),
        ),
        (
            "the larger one if the smaller will not do",
            "cluster-critical",
            &["best-effort", "burstable", "high-burstable"],
            (150, 150, 0),
            Some(&["high-burstable"]),
        ),
        ("more than one", "cluster-critical", &ALL, (350, 350, 0), Some(&["burstable", "high-burstable"])),
        (
            "guaranteed where it must be, and no burstable too many",
            "cluster-critical",
            &ALL,
            (0, 550, 0),
            Some(&["high-burstable", "high-guaranteed"]),
        ),
        (
            "for one more critical",
            "node-critical",
            &["cluster-critical"],
            (100, 0, 0),
            Some(&["cluster-critical"]),
        ),
        ("not for one less critical", "cluster-critical", &["node-critical"], (100, 0, 0), None),
    ];
    for (name, preemptor, pods, (cpu, memory, count), expected) in cases {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let found = pods_to_preempt(&pod(preemptor), &pods, &missing(cpu, memory, count));
        assert_eq!(found.ok().as_deref().map(names).as_deref(), expected, "{name}");
    }
}

#[test]
fn handle_admission_failures() {
    let lacks = |resource: &str, amount: i64| PredicateFailure::InsufficientResource {
        resource: resource.into(),
        requested: amount,
        used: 0,
        capacity: 0,
    };
    let other = PredicateFailure::Predicate { name: "NodePorts", description: "taken" };
    let all: &[&str] =
        &["cluster-critical", "best-effort", "burstable", "high-burstable", "guaranteed", "high-guaranteed"];
    type Outcome = Result<&'static [&'static str], &'static str>;
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, Vec<PredicateFailure>, Outcome);
    let cases: [Case<'_>; 7] = [
        (
            "critical pods stay",
            &["cluster-critical"],
            "cluster-critical",
            vec![lacks("pods", 1)],
            Err("UnexpectedAdmissionError"),
        ),
        (
            "an ordinary pod moves nobody",
            &["burstable"],
            "guaranteed",
            vec![lacks("memory", MEBI)],
            Err("OutOfmemory"),
        ),
        (
            "nothing to be had of best effort",
            &["best-effort"],
            "cluster-critical",
            vec![lacks("memory", MEBI)],
            Err("UnexpectedAdmissionError"),
        ),
        (
            "several go",
            all,
            "cluster-critical",
            vec![lacks("memory", 550 * MEBI)],
            Ok(&["high-burstable", "high-guaranteed"]),
        ),
        (
            "an ordinary pod with two failures",
            &["burstable"],
            "guaranteed",
            vec![lacks("memory", MEBI), other.clone()],
            Err("OutOfmemory"),
        ),
        (
            "nobody goes for a lost cause",
            all,
            "cluster-critical",
            vec![lacks("pods", 1), other],
            Err("NodePorts"),
        ),
        ("a pod more", all, "node-critical", vec![lacks("pods", 1)], Ok(&["best-effort"])),
    ];
    for (name, pods, admitted, failures, expected) in cases {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let found = handle_admission_failure(&pod(admitted), &failures, &pods);
        match (&found, expected) {
            (Ok(pods), Ok(expected)) => assert_eq!(names(pods), expected, "{name}"),
            (Err(rejection), Err(reason)) => assert_eq!(rejection.reason, reason, "{name}"),
            _ => panic!("{name}: {found:?}"),
        }
    }
    let nobody =
        handle_admission_failure(&pod("cluster-critical"), &[lacks("cpu", 5), lacks("pods", 1)], &[]);
    assert_eq!(
        nobody.unwrap_err().message,
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods \
         to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 5), (res: pods, q: 1), ]"
    );
}

#[test]
fn admission_requirements_distance_and_subtract() {
    let cases = [
        ((0, 0, 0), "burstable", 0.0, (0, 0, 0)),
        ((100, 100, 1), "best-effort", 2.0, (100, 100, 0)),
        ((100, 100, 1), "burstable", 0.0, (0, 0, 0)),
        ((50, 50, 0), "burstable", 0.0, (0, 0, 0)),
        ((200, 200, 1), "burstable", 0.5, (100, 100, 0)),
    ];
    for ((cpu, memory, pods), name, distance, left) in cases {
        let (requirements, pod) = (missing(cpu, memory, pods), pod(name));
        assert!(
            (requirements.distance(&pod) - distance).abs() < f64::EPSILON,
            "{cpu} {memory} {pods} {name}"
        );
        assert_eq!(
            requirements.without([&pod]),
            missing(left.0, left.1, left.2),
            "{cpu} {memory} {pods} {name}"
        );
    }
}

#[test]
fn smaller_resource_request() {
    let of = |requests: Value| with_requests("p", requests, false, None);
    let small = || of(json!({"memory": "50Mi", "cpu": "100m"}));
    let cases = [
        (small(), of(json!({})), false),
        (small(), of(json!({"memory": "200Mi", "cpu": "100m"})), true),
        (of(json!({"memory": "200Mi", "cpu": "100m"})), of(json!({"memory": "50Mi", "cpu": "200m"})), false),
        (small(), small(), true),
        (of(json!({"storage": "300Mi"})), of(json!({"storage": "200Mi"})), true),
    ];
    for (a, b, expected) in cases {
        assert_eq!(has_smaller_request(&a, &b), expected, "{:?} {:?}", a.spec, b.spec);
    }
}

#[test]
fn critical_pods_are_static_ones_and_those_of_high_priority() {
    let of = |annotations: Value, priority: Option<i32>| -> Pod {
        serde_json::from_value(json!({"metadata": {"annotations": annotations},
            "spec": {"containers": [], "priority": priority}}))
        .unwrap()
    };
    let cases = [
        (json!({}), None, false),
        (json!({}), Some(SYSTEM_CRITICAL_PRIORITY - 1), false),
        (json!({}), Some(SYSTEM_CRITICAL_PRIORITY), true),
        (json!({"kubernetes.io/config.source": "api"}), None, false),
        (json!({"kubernetes.io/config.source": "file"}), None, true),
        (json!({"kubernetes.io/config.mirror": "hash"}), None, true),
    ];
    for (annotations, priority, expected) in cases {
        assert_eq!(
            is_critical_pod(&of(annotations.clone(), priority)),
            expected,
            "{annotations} {priority:?}"
        );
    }
}

#[test]
fn a_preempted_pod_says_so() {
    let mut status = PodStatus::default();
    preempted_status(&pod("burstable"), &mut status);
    preempted_status(&pod("burstable"), &mut status);
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({"phase": "Failed", "reason": "Preempting", "message": "Preempted in order to admit critical pod",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                "message": "Pod was preempted by Kubelet to accommodate a critical pod.", "observedGeneration": 3}]})
    );
}
