//! Upstream's tables (`pkg/kubelet/status/generate_test.go`).

use serde_json::{Value, json};

use super::*;

/// A pod of these containers (`x…` are init containers, `y…` sidecars), and what follows from their states.
fn conditions(containers: &str, phase: &str, gates: &[(&str, Option<&str>)]) -> PodStatus {
    let (mut init, mut main) = (Vec::new(), Vec::new());
    let (mut init_statuses, mut main_statuses) = (Vec::new(), Vec::new());
    for container in containers.split_whitespace() {
        let (name, state) = container.split_once('=').unwrap();
        let is_init = name.starts_with(['x', 'y']);
        let list = if is_init { &mut init } else { &mut main };
        list.push(json!({"name": name, "restartPolicy": name.starts_with('y').then_some("Always")}));
        let (ready, started, state) = match state {
            "unknown" => continue,
            "ready" => (true, Some(true), json!({})),
            "unready" => (false, None, json!({})),
            "not-started" => (false, Some(false), json!({"running": {}})),
            "running" => (false, None, json!({"running": {}})),
            "terminated" => (false, None, json!({"terminated": {"exitCode": 0}})),
            "waiting" => (false, None, json!({"waiting": {}})),
            other => panic!("no state {other}"),
        };
        let list = if is_init { &mut init_statuses } else { &mut main_statuses };
        list.push(json!({"name": name, "image": "", "imageID": "", "ready": ready, "started": started,
            "restartCount": 0, "state": state}));
    }
    let wanted: Vec<Value> = gates.iter().map(|(gate, _)| json!({"conditionType": gate})).collect();
    let known = gates.iter().filter_map(|(gate, status)| Some(json!({"type": gate, "status": (*status)?})));
    let pod: Pod = serde_json::from_value(json!({"metadata": {"generation": 7},
        "spec": {"initContainers": init, "containers": main, "readinessGates": wanted}}))
    .unwrap();
    let mut status: PodStatus =
        serde_json::from_value(json!({"phase": phase, "conditions": known.collect::<Vec<_>>(),
        "initContainerStatuses": init_statuses, "containerStatuses": main_statuses}))
        .unwrap();
    update_readiness_conditions(&pod, &mut status);
    status
}

/// One of them: `status reason message`.
fn told(status: &PodStatus, condition_type: &str) -> String {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == condition_type).unwrap();
    assert_eq!(found.observed_generation, Some(7));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {} {}", found.status, text(&found.reason), text(&found.message)).trim_end().to_owned()
}

#[test]
fn generate_containers_ready_condition() {
    let cases = [
        ("", "Running", "True"),
        ("a=unknown", "Running", "False ContainersNotReady containers with unknown status: [a]"),
        ("a=ready b=ready", "Running", "True"),
        ("a=ready b=unknown", "Running", "False ContainersNotReady containers with unknown status: [b]"),
        ("a=ready b=unready", "Running", "False ContainersNotReady containers with unready status: [b]"),
        (
            "a=unready b=unknown c=unready",
            "Running",
            "False ContainersNotReady containers with unknown status: [b], containers with unready status: [a c]",
        ),
        ("a=unready", "Succeeded", "False PodCompleted"),
        ("a=unready", "Failed", "False PodFailed"),
        ("a=ready", "Failed", "False PodFailed"),
        ("a=unknown", "Succeeded", "False ContainersNotReady containers with unknown status: [a]"),
        ("y=unknown a=ready", "Running", "False ContainersNotReady containers with unknown status: [y]"),
        ("y1=ready y2=ready a=ready", "Running", "True"),
        (
            "y1=ready y2=unknown a=ready",
            "Running",
            "False ContainersNotReady containers with unknown status: [y2]",
        ),
        (
            "y1=ready y2=unready a=ready",
            "Running",
            "False ContainersNotReady containers with unready status: [y2]",
        ),
        ("x=unready a=ready", "Running", "True"),
    ];
    for (containers, phase, expected) in cases {
        let status = conditions(containers, phase, &[]);
        assert_eq!(told(&status, "ContainersReady"), expected, "{containers} {phase}");
        assert_eq!(told(&status, "Ready"), expected, "{containers} {phase}: without gates they are the same");
    }
}

#[test]
fn generate_pod_ready_condition() {
    let missing =
        |gate: &str| format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.");
    let refused = |gate: &str, status: &str| {
        format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {status}")
    };
    /// Containers, gates and what is known of them, what follows.
    type Case<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)], String);
    let cases: [Case<'_>; 8] = [
        ("a=ready", &[], "True".into()),
        ("a=ready", &[("g1", None)], format!("False ReadinessGatesNotReady {}", missing("g1"))),
        (
            "a=ready",
            &[("g1", Some("False"))],
            format!("False ReadinessGatesNotReady {}", refused("g1", "False")),
        ),
        (
            "a=ready",
            &[("g1", Some("Unknown"))],
            format!("False ReadinessGatesNotReady {}", refused("g1", "Unknown")),
        ),
        ("a=ready", &[("g1", Some("True"))], "True".into()),
        (
            "a=ready",
            &[("g1", Some("True")), ("g2", Some("False"))],
            format!("False ReadinessGatesNotReady {}", refused("g2", "False")),
        ),
        (
            "a=ready",
            &[("g1", None), ("g2", Some("False"))],
            format!("False ReadinessGatesNotReady {}, {}", missing("g1"), refused("g2", "False")),
        ),
        ("a=unready", &[("g1", None)], "False ContainersNotReady containers with unready status: [a]".into()),
    ];
    for (containers, gates, expected) in cases {
        let status = conditions(containers, "Running", gates);
        assert_eq!(told(&status, "Ready"), expected, "{containers} {gates:?}");
    }
}

#[test]
fn generate_pod_initialized_condition() {
    let cases = [
        ("a=unknown", "Running", "True"),
        (
            "x=unknown a=unknown",
            "Running",
            "False ContainersNotInitialized containers with unknown status: [x]",
        ),
        ("x1=ready x2=ready a=unknown", "Running", "True"),
        (
            "x1=ready x2=unknown a=unknown",
            "Running",
            "False ContainersNotInitialized containers with unknown status: [x2]",
        ),
        (
            "x1=ready x2=unready a=unknown",
            "Running",
            "False ContainersNotInitialized containers with incomplete status: [x2]",
        ),
        ("x=ready a=unknown", "Succeeded", "True PodCompleted"),
        (
            "y=not-started a=unknown",
            "Pending",
            "False ContainersNotInitialized containers with incomplete status: [y]",
        ),
        ("y=ready a=unknown", "Running", "True"),
        ("y=not-started a=running", "Running", "True"),
        ("x=waiting a=terminated", "Running", "True"),
    ];
    for (containers, phase, expected) in cases {
        assert_eq!(
            told(&conditions(containers, phase, &[]), "Initialized"),
            expected,
            "{containers} {phase}"
        );
    }
}

#[test]
fn conditions_have_owners() {
    for kind in [
        "PodScheduled",
        "Ready",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
        "PodResizeInProgress",
        "PodResizePending",
        "AllContainersRestarting",
    ] {
        assert!(is_owned_by_kubelet(kind) && !is_shared_by_kubelet(kind), "{kind}");
    }
    assert!(is_shared_by_kubelet("DisruptionTarget") && !is_owned_by_kubelet("DisruptionTarget"));
    assert!(!is_owned_by_kubelet("example.com/gate"));
}

#[test]
fn need_to_reconcile_pod_readiness() {
    let gate = |status: &str| json!({"type": "gate", "status": status});
    let ready =
        |status: &str, message: Option<&str>| json!({"type": "Ready", "status": status, "message": message});
    let missing = "corresponding condition of pod readiness gate \"gate\" does not exist.";
    let is_false = "the status of pod readiness gate \"gate\" is not \"True\", but False";
    let cases = [
        (json!([]), json!([ready("False", None)]), false),
        (json!([{"conditionType": "gate"}]), json!([]), false),
        (json!([{"conditionType": "gate"}]), json!([ready("False", Some(missing))]), false),
        (json!([{"conditionType": "gate"}]), json!([ready("True", None)]), true),
        (json!([{"conditionType": "gate"}]), json!([ready("False", Some(missing)), gate("False")]), true),
        (json!([{"conditionType": "gate"}]), json!([ready("False", Some(is_false)), gate("False")]), false),
        (json!([{"conditionType": "gate"}]), json!([ready("False", Some(is_false)), gate("True")]), true),
        (json!([{"conditionType": "gate"}]), json!([ready("True", None), gate("True")]), false),
    ];
    for (gates, conditions, expected) in cases {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a"}], "readinessGates": gates},
            "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [{"name": "a",
                "image": "", "imageID": "", "ready": true, "restartCount": 0}]}}))
        .unwrap();
        assert_eq!(needs_to_reconcile_readiness(&pod), expected, "{gates} {conditions}");
    }
}
