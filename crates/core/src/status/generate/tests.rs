//! Upstream's tables `Test_generateAPIPodStatus` and `TestGenerateAPIPodStatus…PodIPs` of `kubelet_pods_test.go`.

use serde_json::{Value, json};

use super::*;
use crate::allocation::resource_info_for_pod;
use crate::kuberuntime::test_support::{change, remove, runtime_of};

#[test]
fn addresses_are_in_the_order_of_the_nodes_families() {
    /// Whether it is on the node's network, what the runtime says, the node's addresses, what the pod has.
    type Case = (bool, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 14] = [
        (false, &[], &["10.0.0.1"], &[]),
        (false, &["10.0.0.9"], &["10.0.0.1"], &["10.0.0.9"]),
        (false, &["fd01::9", "10.0.0.9"], &["10.0.0.1"], &["10.0.0.9", "fd01::9"]),
        (false, &["10.0.0.9", "fd01::9"], &["10.0.0.1"], &["10.0.0.9", "fd01::9"]),
        (false, &["10.0.0.9", "fd01::9"], &["fd01::1"], &["fd01::9", "10.0.0.9"]),
        (false, &["10.0.0.9", "10.0.0.8", "fd01::9", "fd01::8"], &["10.0.0.1"], &["10.0.0.9", "fd01::9"]),
        (false, &["fd01::9", "10.0.0.9"], &[], &["10.0.0.9", "fd01::9"]),
        (true, &[], &["10.0.0.1"], &["10.0.0.1"]),
        (true, &[], &["10.0.0.1", "fd01::1"], &["10.0.0.1", "fd01::1"]),
        (true, &[], &["fd01::1", "10.0.0.1"], &["fd01::1", "10.0.0.1"]),
        (true, &["192.168.0.1"], &["10.0.0.1"], &["192.168.0.1"]),
        (true, &["192.168.0.1"], &["10.0.0.1", "fd01::1"], &["192.168.0.1", "fd01::1"]),
        (true, &["192.168.0.1", "2001:db8::2"], &["10.0.0.1", "fd01::1"], &["192.168.0.1", "2001:db8::2"]),
        (true, &[], &["10.0.0.1", "10.0.0.2"], &["10.0.0.1"]),
    ];
    for (host_network, runtime, hosts, expected) in cases {
        let parse = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let actual = pod_ips(host_network, &parse(runtime), &parse(hosts));
        assert_eq!(actual, parse(expected), "{host_network} {runtime:?} {hosts:?}");
    }
}

const TARGET: &str = "DisruptionTarget";

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn statuses(a: Value, b: Value) -> Value {
    json!([container("containerA", a), container("containerB", b)])
}

fn running() -> Value {
    statuses(json!({"running": {}}), json!({"running": {}}))
}

fn waiting() -> Value {
    statuses(json!({"waiting": {}}), json!({"waiting": {}}))
}

fn succeeded() -> Value {
    let end = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    statuses(end.clone(), end)
}

struct Case {
    name: &'static str,
    policy: &'static str,
    deleted: bool,
    is_terminal: bool,
    eviction: Option<Eviction>,
    /// What the API shows, and what was generated last.
    api: Value,
    previous: Value,
    /// Whether there is a sandbox, and which containers run in it.
    sandbox: bool,
    runs: &'static [&'static str],
    /// Phase, reason and message.
    told: (&'static str, &'static str, &'static str),
    /// Each container as `state restartCount`.
    containers: [&'static str; 2],
    initialized: &'static str,
    disrupted: bool,
}

/// What is the same in all cases with a sandbox and nothing in it.
fn case(name: &'static str) -> Case {
    Case {
        name,
        policy: "Always",
        deleted: false,
        is_terminal: false,
        eviction: None,
        api: json!({"containerStatuses": running()}),
        previous: json!({"containerStatuses": running()}),
        sandbox: true,
        runs: &[],
        told: ("Running", "", ""),
        containers: ["waiting 1"; 2],
        initialized: "True",
        disrupted: false,
    }
}

fn generate(case: &Case) -> PodStatus {
    let deletion = case.deleted.then_some("2026-01-01T00:00:00Z");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"uid": "u", "name": "my-pod", "generation": 7, "deletionTimestamp": deletion},
        "spec": {"restartPolicy": case.policy, "containers": [{"name": "containerA"}, {"name": "containerB"}]},
        "status": case.api}))
    .unwrap();
    let old: PodStatus = serde_json::from_value(case.previous.clone()).unwrap();
    let mut runtime = runtime_of(&pod);
    let gone: Vec<&str> =
        ["containerA", "containerB"].into_iter().filter(|name| !case.runs.contains(name)).collect();
    remove(&mut runtime, &gone);
    for name in case.runs {
        change(&mut runtime, name, |status| status.started_at = Some(jiff::Timestamp::UNIX_EPOCH));
    }
    if !case.sandbox {
        runtime.sandboxes.clear();
    }
    let input = StatusInput {
        runtime: &runtime,
        old: &old,
        is_terminal: case.is_terminal,
        reasons: &ReasonCache::default(),
        probes: &ProbeResults::default(),
        host_ips: &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        actuated: &resource_info_for_pod(&pod),
        resize_conditions: &[],
        eviction: case.eviction,
    };
    generate_api_pod_status(&pod, &input)
}

fn cases() -> Vec<Case> {
    let target = json!([{"type": TARGET, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let disrupted = json!({"containerStatuses": running(), "conditions": target});
    let with = |phase: &str, statuses: Value, reason: &str| {
        let message = reason.to_lowercase();
        json!({"phase": phase, "containerStatuses": statuses, "reason": reason, "message": message})
    };
    let deadline = Eviction { reason: "DeadlineExceeded", message: "too long" };
    vec![
        Case {
            deleted: true,
            is_terminal: true,
            api: disrupted.clone(),
            previous: disrupted,
            told: ("Failed", "", ""),
            containers: ["waiting 0"; 2],
            disrupted: true,
            ..case("pod disruption condition is copied over and the phase is set to failed when deleted")
        },
        Case {
            deleted: true,
            containers: ["waiting 0"; 2],
            ..case("current status ready, with previous statuses and deletion")
        },
        case("current status ready, with previous statuses and no deletion"),
        Case {
            api: json!({"phase": "Succeeded", "containerStatuses": running()}),
            sandbox: false,
            told: ("Succeeded", "", ""),
            initialized: "True PodCompleted",
            ..case("terminal phase cannot be changed (apiserver previous is succeeded)")
        },
        Case {
            api: json!({"phase": "Running", "containerStatuses": running()}),
            previous: with("Succeeded", running(), "Test"),
            sandbox: false,
            told: ("Succeeded", "Test", "test"),
            initialized: "True PodCompleted",
            ..case("terminal phase from previous status must remain terminal, restartAlways")
        },
        Case {
            policy: "Never",
            api: json!({"phase": "Running", "containerStatuses": running()}),
            previous: with("Succeeded", succeeded(), "Test"),
            sandbox: false,
            told: ("Succeeded", "Test", "test"),
            containers: ["terminated 0"; 2],
            initialized: "True PodCompleted",
            ..case("terminal phase from previous status must remain terminal, restartNever")
        },
        Case {
            api: json!({"phase": "Running", "containerStatuses": running()}),
            previous: json!({"containerStatuses": waiting()}),
            told: ("Pending", "", ""),
            containers: ["waiting 0"; 2],
            ..case("running can revert to pending")
        },
        Case {
            api: json!({"phase": "Running", "containerStatuses": waiting()}),
            previous: with("Pending", statuses(json!({"waiting": {}}), json!({"running": {}})), "Test"),
            runs: &["containerB"],
            told: ("Pending", "Test", "test"),
            containers: ["waiting 0", "running 0"],
            ..case("reason and message are preserved when phase doesn't change")
        },
        Case {
            api: json!({"phase": "Pending", "containerStatuses": waiting()}),
            previous: with("Pending", running(), "Test"),
            runs: &["containerA", "containerB"],
            containers: ["running 0"; 2],
            ..case("reason and message are cleared when phase changes")
        },
        Case {
            runs: &["containerA", "containerB"],
            eviction: Some(deadline),
            told: ("Failed", "DeadlineExceeded", "too long"),
            containers: ["running 0"; 2],
            ..case("a pod that is evicted fails with the reason for it")
        },
        Case {
            previous: with("Succeeded", succeeded(), "Test"),
            policy: "Never",
            eviction: Some(deadline),
            told: ("Succeeded", "Test", "test"),
            containers: ["terminated 0"; 2],
            initialized: "True PodCompleted",
            ..case("a pod that has ended is not evicted any more")
        },
    ]
}

#[test]
fn generate_api_pod_status_as_upstream() {
    for case in cases() {
        let (name, status) = (case.name, generate(&case));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let told = (text(&status.phase), text(&status.reason), text(&status.message));
        let (phase, reason, message) = case.told;
        assert_eq!(told, (phase.to_owned(), reason.to_owned(), message.to_owned()), "{name}");
        let containers: Vec<String> = status
            .container_statuses
            .iter()
            .flatten()
            .map(|container| {
                let state = container.state.as_ref().unwrap();
                let state = match (&state.running, &state.terminated) {
                    (Some(_), _) => "running",
                    (None, Some(_)) => "terminated",
                    (None, None) => "waiting",
                };
                format!("{state} {}", container.restart_count)
            })
            .collect();
        assert_eq!(containers, case.containers, "{name}");

        let conditions = status.conditions.as_deref().unwrap_or_default();
        let find = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
        let shown = |kind: &str| {
            let condition = find(kind).unwrap();
            assert_eq!(condition.observed_generation, Some(7), "{name}: {kind}");
            format!("{} {}", condition.status, text(&condition.reason)).trim_end().to_owned()
        };
        assert_eq!(shown("Initialized"), case.initialized, "{name}");
        let sandbox = if case.sandbox { "True" } else { "False PodSandboxNotReady" };
        assert_eq!(shown("PodReadyToStartContainers"), sandbox, "{name}");
        assert_eq!(shown("PodScheduled"), "True", "{name}");
        let ended = match phase {
            "Failed" => "False PodFailed",
            "Succeeded" => "False PodCompleted",
            _ if case.runs.len() == 2 => "True",
            _ => "False ContainersNotReady",
        };
        assert_eq!(
            (shown("Ready"), shown("ContainersReady")),
            (ended.to_owned(), ended.to_owned()),
            "{name}"
        );
        assert_eq!(find(TARGET).is_some_and(|c| c.last_transition_time.is_some()), case.disrupted, "{name}");
        assert_eq!(status.observed_generation, Some(7), "{name}");
        assert_eq!(status.qos_class.as_deref(), Some("BestEffort"), "{name}");
        let hosts: Vec<&str> = status.host_ips.iter().flatten().map(|host| host.ip.as_str()).collect();
        assert_eq!(
            (status.host_ip.as_deref(), hosts),
            (Some("127.0.0.1"), vec!["127.0.0.1", "::1"]),
            "{name}"
        );
    }
}
