//! Upstream's table (`TestConvertToAPIContainerStatuses` in `kubelet_pods_test.go`).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::kuberuntime::test_support::running;

/// Containers as `name=state…`; a state may be followed by `*restarts`.
fn parts(text: &str) -> impl Iterator<Item = (&str, &str, i32)> {
    text.split_whitespace().map(|part| {
        let (name, state) = part.split_once('=').unwrap();
        let (state, restarts) = state.split_once('*').unwrap_or((state, "0"));
        (name, state, restarts.parse().unwrap())
    })
}

/// What the API showed: `running`, `waiting`, or the exit code of one that ended.
fn previous(text: &str) -> Vec<ContainerStatus> {
    let status = |(name, state, restarts): (&str, &str, i32)| {
        let state = match state.parse::<i32>() {
            Ok(code) => json!({"terminated": {"exitCode": code}}),
            Err(_) => json!({(state): {}}),
        };
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": restarts, "state": state})
    };
    serde_json::from_value(parts(text).map(status).collect()).unwrap()
}

/// What the runtime has, newest first: `running`, `created`, `unknown`, or an exit code.
fn runtime(pod: &Pod, text: &str) -> RuntimePod {
    let mut runtime = RuntimePod::empty(pod.uid());
    for (at, (name, state, _)) in parts(text).enumerate() {
        let container = pod.all_containers().into_iter().find(|c| c.name == name).unwrap();
        let mut made = running(pod, &container);
        let status = Arc::make_mut(&mut made.status);
        status.id = format!("{name}-{at}");
        status.state = match state {
            "running" => ContainerState::Running,
            "created" => ContainerState::Created,
            "unknown" => ContainerState::Unknown,
            _ => ContainerState::Exited,
        };
        status.exit_code = state.parse().unwrap_or_default();
        runtime.containers.push(made);
    }
    runtime
}

/// `name=state/last state*restarts`.
fn shown(statuses: &[ContainerStatus]) -> String {
    let of = |state: &Option<ApiState>| {
        let Some(state) = state else { return String::new() };
        match (&state.running, &state.terminated, &state.waiting) {
            (Some(_), ..) => "running".to_owned(),
            (_, Some(ended), _) => {
                format!(
                    "{}{}",
                    ended.exit_code,
                    ended.reason.as_deref().map(|r| format!(":{r}")).unwrap_or_default()
                )
            }
            (.., Some(waiting)) => format!("waiting:{}", waiting.reason.as_deref().unwrap_or_default()),
            _ => "nothing".to_owned(),
        }
    };
    let one = |s: &ContainerStatus| {
        format!("{}={}/{}*{}", s.name, of(&s.state), of(&s.last_state), s.restart_count)
    };
    statuses.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn convert_to_api_container_statuses() {
    const GONE: &str = "137:ContainerStatusUnknown";
    const ALL: &str = "RestartingAllContainers";
    // Init containers, whether the pod is deleted, whether all start anew; the runtime's, the API's, what is shown.
    let cases = [
        (
            "",
            true,
            false,
            "",
            "a=running b=running",
            format!("a=waiting:ContainerCreating/{GONE}*0 b=waiting:ContainerCreating/{GONE}*0"),
        ),
        (
            "",
            false,
            false,
            "",
            "a=running b=running",
            format!("a=waiting:ContainerCreating/{GONE}*1 b=waiting:ContainerCreating/{GONE}*1"),
        ),
        ("", false, false, "", "a=-1*5 b=-1*5", "a=-1/*5 b=-1/*5".to_owned()),
        (
            "",
            false,
            false,
            "a=running b=running",
            "a=-1*5 b=-1*5",
            "a=running/-1*6 b=running/-1*6".to_owned(),
        ),
        (
            "",
            false,
            false,
            "",
            "",
            "a=waiting:ContainerCreating/*0 b=waiting:ContainerCreating/*0".to_owned(),
        ),
        ("x", false, false, "", "", "a=waiting:PodInitializing/*0 b=waiting:PodInitializing/*0".to_owned()),
        ("", false, false, "a=running b=3", "a=running b=running", "a=running/*0 b=3/*0".to_owned()),
        ("", false, false, "a=running a=3 b=running b=0", "", "a=running/3*0 b=running/0*0".to_owned()),
        (
            "",
            false,
            false,
            "a=unknown b=unknown",
            "a=running b=waiting",
            format!("a={GONE}/*0 b=waiting:/*0"),
        ),
        ("", false, false, "a=created b=running", "", "a=waiting:/*0 b=running/*0".to_owned()),
        ("", false, true, "a=running b=42", "a=running b=running", "a=running/*0 b=42/*0".to_owned()),
        ("", false, true, "a=137", "a=running b=42", format!("a=137/*0 b=waiting:{ALL}/137:{ALL}*1")),
        (
            "",
            false,
            true,
            "",
            "a=137 b=42",
            format!("a=waiting:{ALL}/137:{ALL}*1 b=waiting:{ALL}/137:{ALL}*1"),
        ),
        (
            "",
            false,
            true,
            "",
            "a=running b=42",
            format!("a=waiting:{ALL}/137:{ALL}*1 b=waiting:{ALL}/137:{ALL}*1"),
        ),
    ];
    for (init, deleted, restarting, has, was, expected) in cases {
        let init: Vec<_> = init.split_whitespace().map(|name| json!({"name": name})).collect();
        let spec = json!({"restartPolicy": "Always", "initContainers": init,
            "containers": [{"name": "a"}, {"name": "b"}]});
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap();
        pod.metadata.deletion_timestamp = deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
        let conversion = Conversion {
            pod: &pod,
            runtime: &runtime(&pod, has),
            reasons: &ReasonCache::default(),
            actuated: &PodResourceInfo::default(),
            restarting,
        };
        let statuses = conversion.container_statuses(&previous(was), pod.containers(), ContainerKind::Main);
        assert_eq!(
            shown(&statuses),
            expected,
            "[{has}] after [{was}], deleted: {deleted}, restarting: {restarting}"
        );
    }
}
