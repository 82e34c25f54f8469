//! Upstream's tables (`TestPodPhase…` in `kubelet_pods_test.go`).

use serde_json::json;

use super::*;

/// The phase of a pod that is written as `name[!restartPolicy][+]=state …`: `x…` are init containers, `y…` sidecars, and
/// `+` those whose exit with 42 restarts all containers.
fn phase_of(policy: &str, containers: &str, is_terminal: bool, has_initialized: bool) -> &'static str {
    let (mut init, mut main, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    for container in containers.split_whitespace() {
        let (name, state) = container.split_once('=').unwrap();
        let (name, own_policy) = match name.split_once('!') {
            Some((name, policy)) => (name, Some(policy)),
            None => (name, name.starts_with('y').then_some("Always")),
        };
        let rules = own_policy.is_some_and(|policy| policy.ends_with('+')).then(
            || json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]),
        );
        let own_policy = own_policy.map(|policy| policy.trim_end_matches('+'));
        let list = if name.starts_with(['x', 'y']) { &mut init } else { &mut main };
        list.push(json!({"name": name, "restartPolicy": own_policy, "restartPolicyRules": rules}));
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let (state, last, started) = match state {
            "none" => continue,
            "running" => (json!({"running": {}}), json!(null), None),
            "started" => (json!({"running": {}}), json!(null), Some(true)),
            "waiting" => (json!({"waiting": {}}), json!(null), None),
            "waiting-after-0" => (json!({"waiting": {}}), ended(0), None),
            "waiting-after-1" => (json!({"waiting": {}}), ended(-1), None),
            "succeeded" => (ended(0), json!(null), None),
            "failed" => (ended(-1), json!(null), None),
            "failed-42" => (ended(42), json!(null), None),
            "restarting" => {
                let end = json!({"terminated": {"exitCode": 137, "reason": "RestartingAllContainers"}});
                (json!({"waiting": {}}), end, None)
            }
            other => panic!("no state {other}"),
        };
        statuses.push(json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last, "started": started}));
    }
    let spec = json!({"restartPolicy": policy, "initContainers": init, "containers": main});
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    let statuses: Vec<ContainerStatus> = serde_json::from_value(json!(statuses)).unwrap();
    get_phase(&pod, &statuses, is_terminal, has_initialized)
}

/// Policy, containers, whether the pod is terminal, whether it was initialized, and the phase that follows.
type Case = (&'static str, &'static str, bool, bool, &'static str);

fn check(cases: &[Case]) {
    for (policy, containers, is_terminal, has_initialized, expected) in cases {
        let actual = phase_of(policy, containers, *is_terminal, *has_initialized);
        assert_eq!(actual, *expected, "{policy}: {containers} {is_terminal} {has_initialized}");
    }
}

#[test]
fn restart_always() {
    check(&[
        ("Always", "a=none b=none", false, false, "Pending"),
        ("Always", "a=running b=running", false, false, "Running"),
        ("Always", "a=succeeded b=succeeded", false, false, "Running"),
        ("Always", "a=succeeded b=succeeded", true, false, "Succeeded"),
        ("Always", "a=succeeded b=failed", true, false, "Failed"),
        ("Always", "a=running b=succeeded", false, false, "Running"),
        ("Always", "a=running b=none", false, false, "Pending"),
        ("Always", "a=running b=waiting", false, false, "Pending"),
        ("Always", "a=running b=waiting-after-0", false, false, "Running"),
        ("Always", "a=waiting", false, false, "Pending"),
        ("Always", "a=waiting-after-1", false, false, "Running"),
    ]);
}

#[test]
fn restart_always_with_init_containers() {
    check(&[
        ("Always", "x=none a=none b=none", false, false, "Pending"),
        ("Always", "x=running a=none b=none", false, false, "Pending"),
        ("Always", "x=failed a=none b=none", false, false, "Pending"),
        ("Always", "x=waiting-after-0 a=none b=none", false, false, "Pending"),
        ("Always", "x=waiting-after-1 a=none b=none", false, false, "Pending"),
        ("Always", "x=waiting a=none b=none", false, false, "Pending"),
        ("Always", "x=succeeded a=running b=running", false, false, "Running"),
    ]);
}

#[test]
fn restart_always_with_sidecars() {
    check(&[
        ("Always", "y=none a=none b=none", false, false, "Pending"),
        ("Always", "y=running a=none b=none", false, false, "Pending"),
        ("Always", "y=succeeded a=none b=none", false, false, "Pending"),
        ("Always", "y=waiting-after-0 a=none b=none", false, false, "Pending"),
        ("Always", "y=waiting-after-1 a=none b=none", false, false, "Pending"),
        ("Always", "y=waiting a=none b=none", false, false, "Pending"),
        ("Always", "y=started a=running b=none", false, true, "Pending"),
        ("Always", "y=started a=running b=running", false, true, "Running"),
        ("Always", "y=running a=running b=running", false, true, "Running"),
        ("Always", "y=succeeded a=running b=running", false, true, "Running"),
        ("Always", "y=waiting-after-0 a=running b=running", false, true, "Running"),
        ("Always", "y=failed a=succeeded b=succeeded", true, true, "Succeeded"),
        ("Always", "y=succeeded a=succeeded b=succeeded", true, true, "Succeeded"),
        ("Always", "y=running a=running b=running", false, false, "Pending"),
    ]);
}

#[test]
fn restart_always_and_the_pod_has_run() {
    check(&[
        ("Always", "x=running y=running a=running", false, false, "Pending"),
        ("Always", "x=running y=running a=succeeded", false, false, "Pending"),
        ("Always", "x=succeeded y=running a=succeeded", false, false, "Pending"),
        ("Always", "x=succeeded y=running a=succeeded", false, true, "Running"),
        ("Always", "x=succeeded y=running a=running", false, true, "Running"),
    ]);
}

#[test]
fn restart_never() {
    check(&[
        ("Never", "a=none b=none", false, false, "Pending"),
        ("Never", "a=running b=running", false, false, "Running"),
        ("Never", "a=succeeded b=succeeded", false, false, "Succeeded"),
        ("Never", "a=failed b=failed", false, false, "Failed"),
        ("Never", "a=succeeded b=failed", false, false, "Failed"),
        ("Never", "a=running b=succeeded", false, false, "Running"),
        ("Never", "a=running b=none", false, false, "Pending"),
        ("Never", "a=running b=waiting", false, false, "Pending"),
        ("Never", "x=none a=none b=none", false, false, "Pending"),
        ("Never", "x=running a=none b=none", false, false, "Pending"),
        ("Never", "x=failed a=none b=none", false, false, "Failed"),
        ("Never", "x=waiting-after-0 a=none b=none", false, false, "Pending"),
        ("Never", "x=waiting-after-1 a=none b=none", false, false, "Failed"),
        ("Never", "x=waiting a=none b=none", false, false, "Pending"),
        ("Never", "x=succeeded a=running b=running", false, false, "Running"),
    ]);
}

#[test]
fn restart_never_with_sidecars() {
    check(&[
        ("Never", "y=none a=none b=none", false, false, "Pending"),
        ("Never", "y=running a=none b=none", false, false, "Pending"),
        ("Never", "y=succeeded a=none b=none", false, false, "Pending"),
        ("Never", "y=waiting-after-0 a=none b=none", false, false, "Pending"),
        ("Never", "y=waiting-after-1 a=none b=none", false, false, "Pending"),
        ("Never", "y=waiting a=none b=none", false, false, "Pending"),
        ("Never", "y=started a=running b=none", false, true, "Pending"),
        ("Never", "y=started a=succeeded b=succeeded", false, true, "Running"),
        ("Never", "y=running a=succeeded b=succeeded", false, true, "Running"),
        ("Never", "y=succeeded a=succeeded b=succeeded", false, true, "Succeeded"),
        ("Never", "y=failed a=succeeded b=succeeded", false, true, "Succeeded"),
        ("Never", "y=waiting-after-0 a=succeeded b=succeeded", false, true, "Succeeded"),
        ("Never", "y=waiting-after-1 a=succeeded b=succeeded", false, true, "Succeeded"),
    ]);
}

#[test]
fn restart_on_failure() {
    check(&[
        ("OnFailure", "a=none b=none", false, false, "Pending"),
        ("OnFailure", "a=running b=running", false, false, "Running"),
        ("OnFailure", "a=succeeded b=succeeded", false, false, "Succeeded"),
        ("OnFailure", "a=failed b=failed", false, false, "Running"),
        ("OnFailure", "a=running b=succeeded", false, false, "Running"),
        ("OnFailure", "a=running b=none", false, false, "Pending"),
        ("OnFailure", "a=running b=waiting", false, false, "Pending"),
        ("OnFailure", "a=running b=waiting-after-0", false, false, "Running"),
    ]);
}

#[test]
fn restart_policies_of_containers() {
    check(&[
        ("Always", "a!Never=failed", false, true, "Failed"),
        ("Always", "a!OnFailure=failed", false, true, "Running"),
        ("Always", "a!Always=failed", false, true, "Running"),
        ("Never", "a!Always=succeeded b=failed", false, true, "Running"),
        ("Always", "a!Never=failed b!OnFailure=succeeded", false, true, "Failed"),
        ("Always", "a!Never=succeeded b!OnFailure=succeeded", false, true, "Succeeded"),
        ("Always", "x!Never=failed a=none", false, true, "Failed"),
        ("Never", "x!OnFailure=failed a=none", false, true, "Pending"),
        ("Never", "x!Always=failed a=none", false, true, "Pending"),
    ]);
}

/// `TestPodPhaseWithRestartAllContainers`.
#[test]
fn restart_all_containers() {
    check(&[
        ("Never", "a!Never+=failed-42", false, true, "Running"),
        ("Never", "x!Never+=failed-42", false, true, "Pending"),
        ("Never", "y!Always+=failed-42 a=waiting", false, true, "Pending"),
        ("Never", "y!Always+=failed-42 x=waiting a=waiting", false, true, "Pending"),
        ("Never", "a!Never+=restarting", false, true, "Running"),
        ("Never", "x!Never+=restarting", false, true, "Pending"),
        ("Never", "y!Always+=restarting a=waiting", false, true, "Pending"),
        ("Never", "y!Always+=restarting x=none a=waiting", false, true, "Pending"),
        ("Never", "x=succeeded a!Never+=restarting", false, true, "Running"),
        ("Never", "x=failed a!Never+=restarting", false, true, "Failed"),
        ("Never", "x!Never+=failed-42 a=waiting", false, true, "Pending"),
        ("Never", "x!Never+=succeeded a=waiting", false, true, "Pending"),
        ("Never", "y!Always+=restarting a=restarting", false, true, "Running"),
        ("Never", "y!Always+=running a=restarting", false, true, "Running"),
        ("Never", "y!Always+=running x=none a=waiting", false, true, "Pending"),
    ]);
}

#[test]
fn a_static_pod_does_not_end_by_being_stopped() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"annotations": {"kubernetes.io/config.source": "file"}},
        "spec": {"containers": [{"name": "a"}]}}))
    .unwrap();
    let ended: Vec<ContainerStatus> =
        serde_json::from_value(json!([{"name": "a", "image": "", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]))
        .unwrap();
    assert_eq!(get_phase(&pod, &ended, true, true), "Running");
}
