//! Upstream's tables (`status_manager_test.go`).

use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodSpec};

use super::*;

fn condition(kind: &str, status: &str) -> PodCondition {
    PodCondition { type_: kind.into(), status: status.into(), ..PodCondition::default() }
}

fn status(phase: &str, ready: &str) -> PodStatus {
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(vec![condition("Ready", ready), condition("ContainersReady", ready)]),
        ..PodStatus::default()
    }
}

#[tokio::test]
async fn a_terminal_phase_waits_until_nothing_can_run() {
    let (old, new) = (status("Running", "True"), status("Succeeded", "True"));
    assert_eq!(merge_pod_status(&old, &new, true).phase.as_deref(), Some("Running"));
    let merged = merge_pod_status(&old, &new, false);
    assert_eq!(merged.phase.as_deref(), Some("Succeeded"));
    assert!(merged.conditions.iter().flatten().all(|c| c.status == "False"));
}

#[tokio::test(start_paused = true)]
async fn transition_times_change_with_the_status_only() {
    let pod = Pod::default();
    let first = complete(&pod, &PodStatus::default(), status("Running", "True"));
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    let second = complete(&pod, &first, status("Running", "True"));
    assert_eq!(first.conditions, second.conditions);
    assert_eq!(first.start_time, second.start_time);
    let third = complete(&pod, &second, status("Running", "False"));
    assert_ne!(
        second.conditions.unwrap()[0].last_transition_time,
        third.conditions.unwrap()[0].last_transition_time
    );
}

#[test]
fn an_ended_container_does_not_run_again() {
    let container = k8s_openapi::api::core::v1::Container { name: "a".into(), ..Default::default() };
    let spec =
        PodSpec { restart_policy: Some("Never".into()), containers: vec![container], ..PodSpec::default() };
    let pod = Pod { spec: Some(spec), ..Pod::default() };
    let with = |state: ContainerState| PodStatus {
        container_statuses: Some(vec![ContainerStatus {
            name: "a".into(),
            state: Some(state),
            ..ContainerStatus::default()
        }]),
        ..PodStatus::default()
    };
    let ended =
        ContainerState { terminated: Some(ContainerStateTerminated::default()), ..Default::default() };
    let old = with(ended.clone());
    assert!(check_container_state_transition(&pod, &old, &with(ContainerState::default())).is_err());
    assert!(check_container_state_transition(&pod, &old, &with(ended)).is_ok());
}

#[test]
fn messages_are_cut_at_a_character() {
    let mut text = "aü".to_owned();
    truncate(&mut text, 2);
    assert_eq!(text, "a");
}

#[tokio::test(start_paused = true)]
async fn that_a_pod_was_taken_away_is_told_with_its_end() {
    let pod = Pod::default();
    let target = |status: &PodStatus| find_condition(status, "DisruptionTarget").cloned();
    let running = status("Running", "True");
    let mut taken = status("Failed", "True");
    taken.conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True"));
    let taken = complete(&pod, &running, taken);
    let began = target(&taken).unwrap().last_transition_time;
    assert!(began.is_some());

    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    let held_back = merge_pod_status(&running, &taken, true);
    assert_eq!((held_back.phase.as_deref(), target(&held_back)), (Some("Running"), None));
    let told = merge_pod_status(&running, &taken, false);
    assert_eq!(told.phase.as_deref(), Some("Failed"));
    assert_ne!(target(&told).unwrap().last_transition_time, began, "it is told now");
    assert_eq!(target(&merge_pod_status(&told, &taken, false)), target(&told), "once");

    assert!(!equal_by_kubelet(&running, &told));
    let mut of_others = running.clone();
    of_others.conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True"));
    assert_eq!(
        target(&merge_pod_status(&of_others, &running, false)),
        target(&of_others),
        "others say it, too"
    );
}

#[test]
fn what_the_status_has_from_elsewhere_stays() {
    let old = PodStatus {
        start_time: Some(api_time("2026-01-01T00:00:00Z".parse().unwrap())),
        observed_generation: Some(4),
        volume_health: Some(Vec::new()),
        nominated_node_name: Some("n".into()),
        ..status("Running", "True")
    };
    let new = PodStatus { observed_generation: Some(3), ..status("Running", "True") };
    let completed = complete(&Pod::default(), &old, new);
    assert_eq!(completed.start_time, old.start_time);
    assert_eq!(completed.observed_generation, Some(4));
    assert_eq!(completed.volume_health, old.volume_health);
    assert_eq!(completed.nominated_node_name, old.nominated_node_name);
}

#[test]
fn messages_share_the_room_of_a_pod() {
    let container =
        |name: &str| k8s_openapi::api::core::v1::Container { name: name.into(), ..Default::default() };
    let spec = PodSpec {
        containers: vec![container("a"), container("b")],
        init_containers: Some(vec![container("c")]),
        ..PodSpec::default()
    };
    let pod = Pod { spec: Some(spec), ..Pod::default() };
    let terminated = ContainerStateTerminated { message: Some("x".repeat(9000)), ..Default::default() };
    let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    let mut long = PodStatus {
        container_statuses: Some(vec![ContainerStatus {
            state: Some(state.clone()),
            last_state: Some(state),
            ..ContainerStatus::default()
        }]),
        ..PodStatus::default()
    };
    normalize(&pod, &mut long);
    let of =
        |state: &Option<ContainerState>| state.clone().unwrap().terminated.unwrap().message.unwrap().len();
    let container = &long.container_statuses.unwrap()[0];
    assert_eq!((of(&container.state), of(&container.last_state)), (4096, 4096));
}

/// `TestMergePodStatus`. Conditions are written as `type=status[:reason]`; those of others are not the kubelet's to write,
/// and the patch leaves them alone.
#[tokio::test(start_paused = true)]
async fn merge_pod_status_as_upstream() {
    fn status(phase: &str, conditions: &str, why: (&str, &str)) -> PodStatus {
        let conditions = conditions.split_whitespace().map(|text| {
            let (kind, rest) = text.split_once('=').unwrap();
            let (status, reason) = rest.split_once(':').unwrap_or((rest, ""));
            let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
            PodCondition { reason, ..condition(kind, status) }
        });
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        PodStatus {
            phase: Some(phase.into()),
            conditions: Some(conditions.collect()),
            reason: some(why.0),
            message: some(why.1),
            ..PodStatus::default()
        }
    }
    fn written(status: &PodStatus) -> String {
        let conditions = status.conditions.iter().flatten();
        let mut all: Vec<String> = conditions
            .map(|c| {
                let reason = c.reason.as_ref().map(|reason| format!(":{reason}")).unwrap_or_default();
                format!("{}={}{reason}", c.type_, c.status)
            })
            .collect();
        all.sort();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{} {}/{} {}",
            text(&status.phase),
            text(&status.reason),
            text(&status.message),
            all.join(" ")
        )
    }
    const READY: &str = "ContainersReady=True PodScheduled=True Ready=True";
    const FAILED: &str = "ContainersReady=False:PodFailed PodScheduled=True Ready=False:PodFailed";
    let with = |more: &str| format!("{READY} {more}");
    let kubelet = with("DisruptionTarget=True:TerminationByKubelet");
    let eviction = with("DisruptionTarget=True:EvictedByEvictionAPI");
    let m = ("", "Message");
    /// Whether something may run; phase, conditions, reason and message of the old status and of the new; what is written.
    type Case<'a> = (&'a str, bool, PodStatus, PodStatus, String);
    let cases: Vec<Case<'_>> = vec![
        (
            "no change",
            false,
            status("Running", READY, m),
            status("Running", READY, m),
            format!("Running /Message {READY}"),
        ),
        (
            "add DisruptionTarget condition when transitioning into failed phase",
            false,
            status("Running", READY, m),
            status("Failed", &kubelet, m),
            "Failed /Message ContainersReady=False:PodFailed DisruptionTarget=True:TerminationByKubelet \
             PodScheduled=True Ready=False:PodFailed"
                .to_owned(),
        ),
        (
            "don't add DisruptionTarget condition when transitioning into failed phase, but there might still be running \
             containers",
            true,
            status("Running", READY, m),
            status("Failed", &kubelet, m),
            format!("Running /Message {READY}"),
        ),
        (
            "preserve DisruptionTarget condition",
            false,
            status("Running", &kubelet, m),
            status("Running", READY, m),
            "Running /Message ContainersReady=True DisruptionTarget=True:TerminationByKubelet PodScheduled=True Ready=True"
                .to_owned(),
        ),
        (
            "override DisruptionTarget condition",
            false,
            status("Running", &eviction, m),
            status("Failed", &kubelet, m),
            "Failed /Message ContainersReady=False:PodFailed DisruptionTarget=True:TerminationByKubelet \
             PodScheduled=True Ready=False:PodFailed"
                .to_owned(),
        ),
        (
            "don't override DisruptionTarget condition when remaining in running phase",
            false,
            status("Running", &eviction, m),
            status("Running", &kubelet, m),
            "Running /Message ContainersReady=True DisruptionTarget=True:EvictedByEvictionAPI PodScheduled=True Ready=True"
                .to_owned(),
        ),
        (
            "don't override DisruptionTarget condition when transitioning to failed phase but there might still be \
             running containers",
            true,
            status("Running", &eviction, m),
            status("Failed", &kubelet, m),
            "Running /Message ContainersReady=True DisruptionTarget=True:EvictedByEvictionAPI PodScheduled=True Ready=True"
                .to_owned(),
        ),
        (
            "readiness changes",
            false,
            status("Running", READY, m),
            status("Running", "ContainersReady=True PodScheduled=True Ready=False", m),
            "Running /Message ContainersReady=True PodScheduled=True Ready=False".to_owned(),
        ),
        (
            "phase is transitioning to failed and no containers running",
            false,
            status("Running", READY, ("Unknown", "Message")),
            status("Failed", READY, ("Evicted", "Was Evicted")),
            format!("Failed Evicted/Was Evicted {FAILED}"),
        ),
        (
            "phase is transitioning to failed and containers running",
            true,
            status("Running", READY, ("Unknown", "Message")),
            status("Failed", READY, ("Evicted", "Was Evicted")),
            format!("Running Unknown/Message {READY}"),
        ),
        (
            "one that has ended stays unready, whatever is generated",
            false,
            status("Failed", FAILED, m),
            status("Failed", READY, m),
            format!("Failed /Message {FAILED}"),
        ),
    ];
    for (name, could_run, old, new, expected) in cases {
        assert_eq!(written(&merge_pod_status(&old, &new, could_run)), expected, "{name}");
    }
}

/// `TestStatusEquality`, but for the order of containers, which is that of the spec here.
#[test]
fn what_others_write_makes_no_difference() {
    let plain = status("Running", "True");
    let with = |change: fn(&mut PodStatus)| {
        let mut changed = plain.clone();
        change(&mut changed);
        equal_by_kubelet(&plain, &changed)
    };
    let same: [fn(&mut PodStatus); 5] = [
        |s| s.conditions.as_mut().unwrap().push(condition("www.example.com/feature", "True")),
        |s| s.conditions.as_mut().unwrap().reverse(),
        |s| s.conditions.as_mut().unwrap()[0].last_transition_time = Some(api_now()),
        |s| s.resource_claim_statuses = Some(vec![Default::default()]),
        |s| s.extended_resource_claim_status = Some(Default::default()),
    ];
    assert!(same.into_iter().all(with));
    let other: [fn(&mut PodStatus); 5] = [
        |s| s.conditions.as_mut().unwrap()[0].message = Some("m".into()),
        |s| s.conditions.as_mut().unwrap()[0].observed_generation = Some(2),
        |s| s.conditions.as_mut().unwrap().push(condition("DisruptionTarget", "True")),
        |s| s.container_statuses = Some(vec![ContainerStatus::default()]),
        |s| s.reason = Some("r".into()),
    ];
    assert!(!other.into_iter().any(with));
}

/// `TestStatusNormalizeTimeStamp`.
#[test]
fn times_are_whole_seconds() {
    let time = || Some(Time("2026-01-01T00:00:00.123456789Z".parse().unwrap()));
    let states = || {
        let running = k8s_openapi::api::core::v1::ContainerStateRunning { started_at: time() };
        let terminated =
            ContainerStateTerminated { started_at: time(), finished_at: time(), ..Default::default() };
        let running = ContainerState { running: Some(running), ..Default::default() };
        let terminated = ContainerState { terminated: Some(terminated), ..Default::default() };
        let one =
            ContainerStatus { state: Some(running), last_state: Some(terminated), ..Default::default() };
        Some(vec![one])
    };
    let mut status = PodStatus {
        start_time: time(),
        container_statuses: states(),
        init_container_statuses: states(),
        ephemeral_container_statuses: states(),
        ..PodStatus::default()
    };
    normalize(&Pod::default(), &mut status);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(text.matches("\"2026-01-01T00:00:00Z\"").count(), 10, "{text}");
}
