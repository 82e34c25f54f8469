//! Upstream's tables (`pkg/kubelet/status/generate_test.go`).

use serde_json::{Value, json};

use super::*;
use crate::kuberuntime::test_support::{change, exit, remove, runtime_of};

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

/// One of those that follow from what the runtime has: `status reason message`.
fn from_runtime(pod: &Pod, runtime: &RuntimePod, phase: &str, old: &PodStatus, kind: &str) -> String {
    let input = ConditionInput { pod, statuses: &[], phase, old };
    let conditions = input.generate(runtime, &[]);
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {} {}", found.status, text(&found.reason), text(&found.message)).trim_end().to_owned()
}

#[test]
fn generate_pod_ready_to_start_containers_condition() {
    use coracle_provider::{NetworkMode, SandboxState, SandboxStatus};
    type Change = fn(&mut RuntimePod);
    fn sandbox(runtime: &mut RuntimePod) -> &mut SandboxStatus {
        std::sync::Arc::make_mut(&mut runtime.sandboxes[0].status)
    }
    let cases: [(&str, bool, Change, &str); 7] = [
        ("Empty pod status", false, |r| r.sandboxes.clear(), "no pod sandbox exists"),
        (
            "Pod sandbox status not ready",
            false,
            |r| sandbox(r).state = SandboxState::NotReady,
            "pod sandbox is not ready",
        ),
        (
            "Pod with multiple ready sandboxes",
            false,
            |r| r.sandboxes.push(r.sandboxes[0].clone()),
            "multiple pod sandboxes are ready and need to be reconciled",
        ),
        (
            "Pod sandbox status ready but network namespace mode changed",
            true,
            |_| {},
            "network namespace mode changed and sandbox needs to be recreated",
        ),
        (
            "Pod sandbox status ready but no IP configured",
            false,
            |r| sandbox(r).network.ips.clear(),
            "pod sandbox has no IP address",
        ),
        ("Pod sandbox status ready and IP configured", false, |_| {}, ""),
        (
            "a sandbox on the node's network needs no IP",
            true,
            |r| {
                sandbox(r).network.mode = NetworkMode::Node;
                sandbox(r).network.ips.clear();
            },
            "",
        ),
    ];
    for (name, host_network, change, message) in cases {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u", "generation": 7},
            "spec": {"containers": [{"name": "a"}], "hostNetwork": host_network}}))
        .unwrap();
        let mut runtime = runtime_of(&pod);
        change(&mut runtime);
        let kind = "PodReadyToStartContainers";
        let told = from_runtime(&pod, &runtime, "Running", &PodStatus::default(), kind);
        let expected = if message.is_empty() {
            "True".to_owned()
        } else {
            format!("False PodSandboxNotReady {message}")
        };
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn generate_all_containers_restarting_condition() {
    let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let trigger = json!({"name": "trigger", "restartPolicy": "Never", "restartPolicyRules": rule});
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "container1"}, trigger]}}),
    )
    .unwrap();
    let started = "True RestartAllContainersStarted container exited with restart policy rule";
    type Change = fn(&mut RuntimePod);
    let nothing: Change = |r| r.containers.clear();
    let cases: [(&str, Change, bool, &str, &str); 8] = [
        ("pod pending", nothing, false, "Pending", "False"),
        ("pod failed", nothing, false, "Failed", "False PodFailed"),
        ("pod succeeded", nothing, false, "Succeeded", "False PodCompleted"),
        (
            "container triggers RestartAllContainers rule",
            |r| exit(r, "trigger", 42),
            false,
            "Running",
            started,
        ),
        (
            "container triggres RestartAllContainers rule, cleaning up",
            |r| {
                exit(r, "container1", 0);
                exit(r, "trigger", 42);
            },
            true,
            "Running",
            started,
        ),
        ("container triggres RestartAllContainers rule, cleaned up", nothing, true, "Pending", "False"),
        ("one of them is gone", |r| remove(r, &["trigger"]), true, "Running", started),
        ("another exit code", |r| change(r, "trigger", |s| s.exit_code = 1), false, "Running", "False"),
    ];
    for (name, change, was_restarting, phase, expected) in cases {
        let mut runtime = runtime_of(&pod);
        change(&mut runtime);
        let old = was_restarting.then(|| json!([{"type": "AllContainersRestarting", "status": "True"}]));
        let old: PodStatus = serde_json::from_value(json!({"conditions": old})).unwrap();
        let told = from_runtime(&pod, &runtime, phase, &old, "AllContainersRestarting");
        assert_eq!(told, expected, "{name}");
    }
}
