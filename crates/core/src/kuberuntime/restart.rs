//! Whether a container that ended runs again (upstream: `pkg/api/v1/pod/util.go`, `container/helpers.go`).

use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodStatus};

use super::runtime_pod::RuntimePod;
use crate::pod::{PodExt, restart_policy};

/// The action of a restart rule that restarts this container.
const ACTION_RESTART: &str = "Restart";
/// The action of a restart rule that restarts all containers of the pod.
const ACTION_RESTART_ALL: &str = "RestartAllContainers";
/// The condition of a pod whose containers are all being restarted.
pub const ALL_CONTAINERS_RESTARTING: &str = "AllContainersRestarting";

/// Whether a container that ended with `exit_code` is to be started again (`ContainerShouldRestart`): by the first
/// rule that matches, else by its own policy, else by the pod's.
pub fn container_should_restart(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    let policy = match container.restart_policy.as_deref() {
        None => pod.restart_policy(),
        Some(own) => {
            let restarts =
                |rule: &ContainerRestartRule| [ACTION_RESTART, ACTION_RESTART_ALL].contains(&&*rule.action);
            if matching_rule(container, exit_code).is_some_and(restarts) {
                return true;
            }
            own
        }
    };
    match policy {
        restart_policy::NEVER => false,
        restart_policy::ON_FAILURE => exit_code != 0,
        _ => true,
    }
}

/// The first restart rule that applies to an exit code (`FindMatchingContainerRestartRule`).
fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })
}

/// Whether all containers of the pod start anew because this one ended with `exit_code`.
pub(super) fn restarts_all_containers(container: &Container, exit_code: i32) -> bool {
    matching_rule(container, exit_code).is_some_and(|rule| rule.action == ACTION_RESTART_ALL)
}

/// Whether a pod can come to restart all of its containers (`AllContainersCouldRestart`).
pub fn all_containers_could_restart(pod: &Pod) -> bool {
    let containers = pod.init_containers().iter().chain(pod.containers());
    containers
        .flat_map(|c| c.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == ACTION_RESTART_ALL)
}

/// Whether all containers of a pod are to start anew: that has begun, or one of them has ended in a way that asks for
/// it, as the runtime or the API knows (`ShouldAllContainersRestart`).
pub fn should_all_containers_restart(pod: &Pod, runtime: &RuntimePod, status: &PodStatus) -> bool {
    if is_restarting_all_containers(status) {
        return true;
    }
    let lists = [&status.init_container_statuses, &status.container_statuses];
    pod.init_containers().iter().chain(pod.containers()).any(|container| {
        // What the runtime has is newer than what the API shows; a container that is gone from it has been dealt with.
        let Some(found) = runtime.find(&container.name).filter(|c| c.state == ContainerState::Exited) else {
            return false;
        };
        let shown = lists.into_iter().flatten().flatten().find(|s| s.name == container.name);
        let shown = shown.and_then(|s| s.state.as_ref()?.terminated.as_ref());
        restarts_all_containers(container, found.exit_code)
            || shown.is_some_and(|end| restarts_all_containers(container, end.exit_code))
    })
}

/// The same as far as the API shows it, for those who do not know the runtime.
pub fn shows_restart_of_all_containers(pod: &Pod, status: &PodStatus) -> bool {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let ended = lists.into_iter().flatten().flatten().filter_map(|shown| {
        let end = shown.state.as_ref()?.terminated.as_ref()?;
        let mut containers = pod.init_containers().iter().chain(pod.containers());
        Some((containers.find(|c| c.name == shown.name)?, end.exit_code))
    });
    let mut ended = ended.into_iter();
    is_restarting_all_containers(status) || ended.any(|(spec, code)| restarts_all_containers(spec, code))
}

/// Whether the status says that all containers are being restarted.
pub fn is_restarting_all_containers(status: &PodStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions.iter().any(|c| c.type_ == ALL_CONTAINERS_RESTARTING && c.status == "True")
}

/// Whether nothing of the containers is left, so that they can start anew (`AllContainersRestartCleanedUp`).
pub fn all_containers_restart_cleaned_up(pod: &Pod, runtime: &RuntimePod) -> bool {
    pod.init_containers().iter().chain(pod.containers()).all(|c| runtime.find(&c.name).is_none())
}

/// Whether a container that does not run is to be started now (`ShouldContainerBeRestarted`).
pub fn should_container_be_restarted(container: &Container, pod: &Pod, runtime: &RuntimePod) -> bool {
    if pod.is_deleting() {
        return false;
    }
    let Some(status) = runtime.find(&container.name) else { return true };
    match status.state {
        ContainerState::Running => false,
        ContainerState::Unknown | ContainerState::Created => true,
        ContainerState::Exited => container_should_restart(container, pod, status.exit_code),
    }
}

/// Whether a running container of this policy is started again after it was killed for its health.
pub(super) fn restart_after_kill(container: &Container, pod: &Pod) -> bool {
    container.restart_policy.as_deref().unwrap_or(pod.restart_policy()) != restart_policy::NEVER
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerRestartRuleOnExitCodes, PodSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::kuberuntime::test_support::{change, exit, running, runtime_of};

    fn pod(policy: &str) -> Pod {
        Pod {
            spec: Some(PodSpec { restart_policy: Some(policy.into()), ..PodSpec::default() }),
            ..Pod::default()
        }
    }

    fn container(policy: Option<&str>, rule: Option<(&str, i32)>) -> Container {
        Container {
            restart_policy: policy.map(Into::into),
            restart_policy_rules: rule.map(|(operator, code)| {
                vec![ContainerRestartRule {
                    action: ACTION_RESTART.into(),
                    exit_codes: Some(ContainerRestartRuleOnExitCodes {
                        operator: operator.into(),
                        values: Some(vec![code]),
                    }),
                }]
            }),
            ..Container::default()
        }
    }

    /// `TestShouldContainerBeRestarted`.
    #[test]
    fn what_does_not_run_starts_by_its_policy() {
        let states = [
            ("no-history", None, [true, true, true]),
            ("alive", Some((ContainerState::Running, 0)), [false, false, false]),
            ("succeed", Some((ContainerState::Exited, 0)), [false, false, true]),
            ("failed", Some((ContainerState::Exited, 1)), [false, true, true]),
            ("unknown", Some((ContainerState::Unknown, 0)), [true, true, true]),
            ("created", Some((ContainerState::Created, 0)), [true, true, true]),
        ];
        for (name, state, expected) in states {
            for (policy, expected) in ["Never", "OnFailure", "Always"].into_iter().zip(expected) {
                let mut pod = pod(policy);
                let spec = Container { name: name.into(), ..Container::default() };
                pod.spec.get_or_insert_default().containers = vec![spec.clone()];
                let mut runtime = runtime_of(&pod);
                match state {
                    None => runtime.containers.clear(),
                    Some((state, code)) => change(&mut runtime, name, |status| {
                        status.state = state;
                        status.exit_code = code;
                    }),
                }
                // An older instance says nothing.
                let mut older = running(&pod, &spec);
                std::sync::Arc::make_mut(&mut older.status).state = ContainerState::Exited;
                std::sync::Arc::make_mut(&mut older.status).exit_code = 2;
                runtime.containers.extend(state.map(|_| older));
                let restarted = |pod: &Pod| should_container_be_restarted(&spec, pod, &runtime);
                assert_eq!(restarted(&pod), expected, "{name} {policy}");
                pod.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
                assert!(!restarted(&pod), "{name} {policy}: nothing starts in a pod that is to end");
            }
        }
    }

    /// `TestShouldAllContainersRestart`, and as far as the API shows it.
    #[test]
    fn one_exit_may_restart_all() {
        let rule =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        let with = |list: &str, policy: &str, rules: &Value| -> Pod {
            let container = json!({"name": "c", "restartPolicy": policy, "restartPolicyRules": rules});
            let spec = json!({"containers": [], (list): [container]});
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
        };
        let marked = json!([{"type": "AllContainersRestarting", "status": "True"}]);
        let none = json!(null);
        let cases = [
            ("pod marked with condition", with("containers", "Never", &none), None, &marked, true),
            (
                "regular container exited with matching rules",
                with("containers", "Never", &rule),
                Some(42),
                &none,
                true,
            ),
            (
                "init container exited with matching rules",
                with("initContainers", "Never", &rule),
                Some(42),
                &none,
                true,
            ),
            (
                "sidecar container exited with matching rules",
                with("initContainers", "Always", &rule),
                Some(42),
                &none,
                true,
            ),
            ("container exited without rules", with("containers", "Never", &none), Some(1), &none, false),
            ("container exited with another code", with("containers", "Never", &rule), Some(1), &none, false),
            ("container runs", with("containers", "Never", &rule), None, &none, false),
        ];
        for (name, pod, exit_code, conditions, expected) in cases {
            let mut runtime = runtime_of(&pod);
            let status: PodStatus = serde_json::from_value(json!({"conditions": conditions})).unwrap();
            let end = exit_code.map(|code| json!({"exitCode": code}));
            let statuses = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": end}}]);
            let list =
                if pod.containers().is_empty() { "initContainerStatuses" } else { "containerStatuses" };
            let shown: PodStatus =
                serde_json::from_value(json!({"conditions": conditions, (list): statuses})).unwrap();
            if let Some(code) = exit_code {
                exit(&mut runtime, "c", code);
            }
            assert_eq!(should_all_containers_restart(&pod, &runtime, &status), expected, "{name}");
            assert_eq!(shows_restart_of_all_containers(&pod, &shown), expected, "{name}: as shown");
        }
    }

    #[test]
    fn rules_come_before_the_container_policy_and_that_before_the_pods() {
        let cases = [
            ("Always", None, None, 0, true),
            ("OnFailure", None, None, 0, false),
            ("OnFailure", None, None, 1, true),
            ("Never", None, None, 1, false),
            ("Never", Some("Always"), None, 0, true),
            ("Always", Some("Never"), None, 1, false),
            ("Always", Some("OnFailure"), None, 0, false),
            ("Never", Some("Never"), Some(("In", 42)), 42, true),
            ("Never", Some("Never"), Some(("In", 42)), 41, false),
            ("Never", Some("Never"), Some(("NotIn", 42)), 41, true),
            ("Always", Some("Never"), Some(("NotIn", 42)), 42, false),
        ];
        for (pod_policy, own, rule, code, expected) in cases {
            let actual = container_should_restart(&container(own, rule), &pod(pod_policy), code);
            assert_eq!(actual, expected, "{pod_policy} {own:?} {rule:?} {code}");
        }
    }
}
