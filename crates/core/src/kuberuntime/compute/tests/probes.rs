use serde_json::{Value, json};

use super::*;
use crate::prober::ProbeType;

fn rig(restart_policy: &str, init: Value, main: Value) -> (Pod, RuntimePod) {
    let pod = pod(json!({"restartPolicy": restart_policy, "initContainers": init, "containers": main}));
    let runtime = runtime_of(&pod);
    (pod, runtime)
}

fn compute(pod: &Pod, runtime: &RuntimePod, probes: &ProbeResults) -> PodActions {
    let actuated = resource_info_for_pod(pod);
    compute_pod_actions(&ComputeInput {
        pod,
        runtime,
        probes,
        actuated: &actuated,
        restart_all_containers: false,
    })
}

fn killed(actions: &PodActions) -> Vec<(&str, KillReason, &str)> {
    actions.containers_to_kill.iter().map(|k| (&*k.container.name, k.reason, &*k.message)).collect()
}

fn failed(probe_type: ProbeType, name: &str) -> ProbeResults {
    let results = ProbeResults::default();
    results.of(probe_type).set(&format!("{PROVIDER}://{name}"), ProbeResult::Failure);
    results
}

#[test]
fn a_container_that_fails_its_probe_is_killed_and_restarted_by_policy() {
    let cases = [
        ("Always", None, true),
        ("OnFailure", None, true),
        ("Never", None, false),
        ("Never", Some("Always"), true),
        ("Never", Some("OnFailure"), true),
        ("Always", Some("Never"), false),
    ];
    let probes = [
        (ProbeType::Liveness, KillReason::LivenessProbe, "Container a failed liveness probe"),
        (ProbeType::Startup, KillReason::StartupProbe, "Container a failed startup probe"),
    ];
    for (pod_policy, own, restarts) in cases {
        for (probe_type, reason, message) in probes {
            let mut a = container("a");
            a["restartPolicy"] = json!(own);
            let (pod, runtime) = rig(pod_policy, json!([]), json!([a, container("b")]));
            let actions = compute(&pod, &runtime, &failed(probe_type, "a"));
            let message = if restarts { format!("{message}, will be restarted") } else { message.to_owned() };
            assert_eq!(killed(&actions), [("a", reason, message.as_str())], "{pod_policy} {own:?}");
            let expected: &[usize] = if restarts { &[0] } else { &[] };
            assert_eq!(actions.containers_to_start, expected);
            assert!(!actions.kill_pod, "the other one goes on");
        }
    }
}

#[test]
fn a_pod_of_which_nothing_is_left_is_killed_for_the_probes_reason() {
    let (pod, runtime) = rig("Never", json!([]), json!([container("a")]));
    let actions = compute(&pod, &runtime, &failed(ProbeType::Liveness, "a"));
    assert!(actions.kill_pod && !actions.create_sandbox);
    let message = "Container a failed liveness probe";
    assert_eq!(killed(&actions), [("a", KillReason::LivenessProbe, message)]);
}

#[test]
fn results_that_are_no_failure_change_nothing() {
    let results = ProbeResults::default();
    results.liveness.set("p://a", ProbeResult::Success);
    results.startup.set("p://a", ProbeResult::Unknown);
    results.readiness.set("p://a", ProbeResult::Failure);
    results.liveness.set("p://an-older-one", ProbeResult::Failure);
    let (pod, runtime) = rig("Always", json!([]), json!([container("a")]));
    let actions = compute(&pod, &runtime, &results);
    assert!(actions.containers_to_kill.is_empty() && actions.containers_to_start.is_empty());
    assert!(!actions.kill_pod);
}

#[test]
fn what_the_user_changed_is_restarted_whatever_the_policy() {
    let (pod, mut runtime) = rig("Never", json!([]), json!([container("a")]));
    change(&mut runtime, "a", |status| status.annotations.clear());
    let actions = compute(&pod, &runtime, &failed(ProbeType::Liveness, "a"));
    let message = "Container a definition changed, will be restarted";
    assert_eq!(killed(&actions), [("a", KillReason::DefinitionChanged, message)]);
    assert_eq!(actions.containers_to_start, [0]);
}

/// The result of the sidecar's startup probe, the init containers to start, and whether main containers may start.
#[test]
fn what_follows_a_sidecar_waits_for_its_startup_probe() {
    let cases: &[(bool, Option<ProbeResult>, &[usize])] = &[
        (false, None, &[1]),
        (true, None, &[]),
        (true, Some(ProbeResult::Unknown), &[]),
        (true, Some(ProbeResult::Success), &[1]),
        (true, Some(ProbeResult::Failure), &[0]),
    ];
    for (probed, result, init_to_start) in cases {
        let init = json!([sidecar("one", *probed), sidecar("two", false)]);
        let (pod, mut runtime) = rig("Always", init, json!([container("a")]));
        remove(&mut runtime, &["two", "a"]);
        let results = ProbeResults::default();
        if let Some(result) = result {
            results.startup.set("p://one", *result);
        }
        let actions = compute(&pod, &runtime, &results);
        assert_eq!(actions.init_containers_to_start, *init_to_start, "{probed} {result:?}");
        assert!(actions.containers_to_start.is_empty());
        let message = "Init container one failed startup probe";
        if *result == Some(ProbeResult::Failure) {
            assert_eq!(killed(&actions), [("one", KillReason::StartupProbe, message)]);
        } else {
            assert_eq!(killed(&actions), []);
        }
    }
}

#[test]
fn main_containers_wait_for_the_last_sidecar() {
    for (result, expected) in
        [(None, vec![]), (Some(ProbeResult::Unknown), vec![]), (Some(ProbeResult::Success), vec![0])]
    {
        let (pod, mut runtime) = rig("Always", json!([sidecar("one", true)]), json!([container("a")]));
        remove(&mut runtime, &["a"]);
        let results = ProbeResults::default();
        if let Some(result) = result {
            results.startup.set("p://one", result);
        }
        let actions = compute(&pod, &runtime, &results);
        assert_eq!(actions.containers_to_start, expected, "{result:?}");
        assert!(!actions.kill_pod);
    }
}

#[test]
fn a_sidecar_that_fails_its_probe_is_restarted_and_nothing_else() {
    for policy in ["Always", "OnFailure", "Never"] {
        for (probe_type, reason, what) in [
            (ProbeType::Liveness, KillReason::LivenessProbe, "liveness"),
            (ProbeType::Startup, KillReason::StartupProbe, "startup"),
        ] {
            let init = json!([sidecar("one", true), container("once"), sidecar("two", false)]);
            let (pod, mut runtime) = rig(policy, init, json!([container("a")]));
            change(&mut runtime, "once", |status| status.state = ContainerState::Exited);
            let actions = compute(&pod, &runtime, &failed(probe_type, "one"));
            let message = format!("Init container one failed {what} probe");
            assert_eq!(killed(&actions), [("one", reason, message.as_str())], "{policy}");
            assert_eq!(actions.init_containers_to_start, [0]);
            assert!(actions.containers_to_start.is_empty() && !actions.kill_pod);
        }
    }
}

#[test]
fn sidecars_do_not_come_back_when_the_pod_is_done() {
    let (pod, mut runtime) = rig("Never", json!([sidecar("one", false)]), json!([container("a")]));
    change(&mut runtime, "a", |status| status.state = ContainerState::Exited);
    let actions = compute(&pod, &runtime, &failed(ProbeType::Liveness, "one"));
    assert!(actions.kill_pod && actions.init_containers_to_start.is_empty());
}
