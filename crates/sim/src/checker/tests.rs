//! The checker on histories made by hand: each rule is broken once, and a good history breaks none.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

/// Tells facts about the pod `u` a second apart, and answers the first rule that is broken.
fn broken(facts: Vec<Fact>) -> Option<&'static str> {
    let mut checker = Checker::default();
    facts.into_iter().zip(1u64..).find_map(|(fact, second)| {
        let about_pod = !matches!(fact, Fact::AgentStarted | Fact::AgentKilled);
        let uid = if about_pod { "u".to_owned() } else { String::new() };
        let record = Record { at: Duration::from_secs(second), uid, fact };
        checker.observe(&record).map(|violation| violation.rule)
    })
}

fn created(spec: Value) -> Fact {
    let pod = json!({"metadata": {"uid": "u", "name": "p"}, "spec": spec});
    Fact::Created(Arc::new(serde_json::from_value(pod).unwrap()))
}

fn one(policy: &str) -> Fact {
    created(json!({"restartPolicy": policy, "containers": [{"name": "main"}]}))
}

fn container(id: &str, state: ContainerState, exit_code: i32) -> Fact {
    let name = id.split('-').next().unwrap().to_owned();
    Fact::Container { id: id.to_owned(), name, sandbox: "s".to_owned(), state, exit_code }
}

fn runs(id: &str) -> Fact {
    container(id, ContainerState::Running, 0)
}

fn ends(id: &str, exit_code: i32) -> Fact {
    container(id, ContainerState::Exited, exit_code)
}

fn create(name: &str) -> Fact {
    Fact::CreateCalled { name: name.to_owned(), sandbox: "s".to_owned() }
}

fn sandbox(ready: bool) -> Fact {
    Fact::Sandbox { id: "s".to_owned(), ready }
}

fn seen(grace: Option<i64>, phase: &str) -> Fact {
    Fact::Seen { grace, phase: phase.to_owned() }
}

fn patched(phase: &str, restarts: i32) -> Fact {
    let restarts = vec![("main".to_owned(), restarts)];
    Fact::Patched(Shown { onto: "u".to_owned(), phase: phase.to_owned(), restarts, ..Shown::default() })
}

fn patched_onto(uid: &str, running: &[&str], ended: &[&str]) -> Fact {
    let ids = |list: &[&str]| list.iter().map(|&id| format!("p://{id}")).collect();
    Fact::Patched(Shown {
        onto: uid.to_owned(),
        phase: "Running".to_owned(),
        running: ids(running),
        ended: ids(ended),
        ..Shown::default()
    })
}

fn rejected() -> Fact {
    let (onto, phase) = ("u".to_owned(), "Failed".to_owned());
    Fact::Patched(Shown { onto, phase, rejected: true, ..Shown::default() })
}

fn started(seconds: u64) -> Fact {
    let started = Some(Duration::from_secs(seconds));
    Fact::Patched(Shown { onto: "u".to_owned(), phase: "Running".to_owned(), started, ..Shown::default() })
}

fn stop(seconds: u64) -> Fact {
    Fact::StopCalled { id: "main-0".to_owned(), grace: Duration::from_secs(seconds) }
}

const BURIED: Fact = Fact::Gone { by_agent: true };

#[test]
fn a_life_as_it_should_be() {
    let spec = json!({"restartPolicy": "Always", "containers": [{"name": "main"}],
        "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}]});
    let life = vec![
        Fact::AgentStarted,
        created(spec),
        seen(None, "Pending"),
        Fact::Mounted,
        sandbox(true),
        create("init"),
        runs("init-0"),
        ends("init-0", 0),
        create("main"),
        runs("main-0"),
        patched("Running", 0),
        ends("main-0", 1),
        runs("main-1"),
        patched("Running", 1),
        Fact::AgentKilled,
        Fact::AgentStarted,
        seen(Some(30), "Running"),
        stop(30),
        seen(Some(5), "Running"),
        stop(5),
        ends("main-1", 143),
        sandbox(false),
        Fact::Unmounted,
        patched("Failed", 1),
        BURIED,
    ];
    assert_eq!(broken(life), None);
}

#[test]
fn two_instances_of_a_container() {
    assert_eq!(broken(vec![one("Always"), runs("main-0"), runs("main-1")]), Some("one instance at a time"));
    assert_eq!(broken(vec![one("Always"), runs("main-0"), runs("main-0")]), None, "told twice");
    assert_eq!(broken(vec![one("Always"), runs("main-0"), runs("other-0")]), None);
}

#[test]
fn an_object_that_goes_too_early() {
    let rule = Some("the object outlives the pod");
    assert_eq!(broken(vec![runs("main-0"), BURIED]), rule);
    assert_eq!(broken(vec![sandbox(true), BURIED]), rule);
    assert_eq!(broken(vec![Fact::Mounted, BURIED]), rule);
    assert_eq!(broken(vec![BURIED, sandbox(true)]), rule);
    assert_eq!(broken(vec![BURIED, runs("main-0")]), rule);
    assert_eq!(broken(vec![runs("main-0"), Fact::Gone { by_agent: false }]), None, "a user may force it");
    assert_eq!(broken(vec![BURIED, Fact::Belated, sandbox(true)]), None, "nobody could know");
}

#[test]
fn statuses_that_must_not_be() {
    assert_eq!(
        broken(vec![patched("Failed", 0), patched("Running", 0)]),
        Some("a terminal phase never changes")
    );
    assert_eq!(broken(vec![patched("Failed", 0), patched("Failed", 0)]), None);
    assert_eq!(broken(vec![patched("Running", 2), patched("Running", 1)]), Some("restart counts never fall"));
    assert_eq!(broken(vec![patched_onto("v", &[], &[])]), Some("a status belongs to one UID"));
    assert_eq!(broken(vec![patched_onto("u", &["v-a"], &[])]), Some("a status belongs to one UID"));
    let (runs, ended) = (|| patched_onto("u", &["u-a"], &[]), || patched_onto("u", &[], &["u-a"]));
    assert_eq!(broken(vec![runs(), ended(), patched_onto("u", &["u-b"], &["u-a"])]), None);
    assert_eq!(broken(vec![runs(), ended(), runs()]), Some("what has ended does not run again"));
}

#[test]
fn starts_that_must_not_be() {
    let deleted = Some("a deleted pod starts nothing");
    assert_eq!(broken(vec![one("Always"), seen(Some(5), "Running"), create("main")]), deleted);
    let unseen = vec![seen(Some(5), "Running"), Fact::AgentKilled, create("main")];
    assert_eq!(broken(unseen), None, "the new agent has not been told");
    assert_eq!(broken(vec![seen(None, "Failed"), create("main")]), Some("a pod that ended starts nothing"));
    let spec = json!({"containers": [{"name": "main"}], "initContainers": [{"name": "init"}]});
    let not_yet = vec![created(spec), runs("init-0"), ends("init-0", 1), create("main")];
    assert_eq!(broken(not_yet), Some("init containers come first"));
}

#[test]
fn what_ended_for_good() {
    let rule = Some("what ended for good runs once");
    assert_eq!(broken(vec![one("Never"), runs("main-0"), ends("main-0", 1), runs("main-1")]), rule);
    assert_eq!(broken(vec![one("OnFailure"), runs("main-0"), ends("main-0", 0), runs("main-1")]), rule);
    assert_eq!(broken(vec![one("OnFailure"), runs("main-0"), ends("main-0", 1), runs("main-1")]), None);
    let killed = vec![one("OnFailure"), runs("main-0"), stop(5), ends("main-0", 0), runs("main-1")];
    assert_eq!(broken(killed), None, "the agent restarts it");
    let changed = Fact::ContainerChanged { name: "main".to_owned() };
    assert_eq!(broken(vec![one("Never"), changed, runs("main-0"), ends("main-0", 1), runs("main-1")]), None);
}

#[test]
fn grace_that_grows() {
    let rule = Some("grace periods only shrink");
    assert_eq!(broken(vec![seen(Some(30), "Running"), seen(Some(5), "Running"), stop(30)]), rule);
    assert_eq!(broken(vec![seen(Some(0), "Running"), stop(2)]), None, "everyone gets two seconds");
    assert_eq!(broken(vec![stop(30), seen(Some(5), "Running")]), None);
}

#[test]
fn volumes_that_go_too_early() {
    assert_eq!(
        broken(vec![Fact::Mounted, runs("main-0"), Fact::Unmounted]),
        Some("volumes outlive containers")
    );
}

#[test]
fn a_manifest_that_goes_and_comes_back() {
    let wait = || (0..10).map(|_| Fact::Note("time passes".to_owned()));
    let gone = || vec![one("Never"), seen(None, ""), Fact::Unwanted];
    let late = gone().into_iter().chain(wait());
    assert_eq!(broken(late.clone().chain([create("main")]).collect()), Some("a deleted pod starts nothing"));
    let again = late.clone().chain([one("Never"), seen(None, ""), create("main")]);
    assert_eq!(broken(again.collect()), None);
    assert_eq!(broken(late.chain([Fact::MirrorRemoved]).collect()), None);
    let kept = vec![one("Never"), seen(None, "")].into_iter().chain(wait()).chain([Fact::MirrorRemoved]);
    assert_eq!(broken(kept.collect()), Some("a mirror is kept"));
    let lives = vec![one("Never"), runs("main-0"), ends("main-0", 1), one("Never"), runs("main-1")];
    assert_eq!(broken(lives), None, "another life");
    assert_eq!(broken(vec![patched("Failed", 1), Fact::MirrorCreated, patched("Running", 1)]), None);
}

#[test]
fn admission_is_final() {
    let nothing = Some("a rejected pod starts nothing");
    assert_eq!(broken(vec![one("Always"), rejected(), create("main")]), nothing);
    assert_eq!(broken(vec![one("Always"), rejected(), sandbox(true)]), nothing);
    let rule = Some("who has a place keeps it");
    assert_eq!(broken(vec![one("Always"), runs("main-0"), rejected()]), rule);
    assert_eq!(broken(vec![one("Always"), sandbox(true), rejected()]), rule);
}

#[test]
fn what_runs_once_or_not_for_long() {
    let ephemeral = vec![one("Always"), runs("eph0-0"), ends("eph0-0", 1), runs("eph0-1")];
    assert_eq!(broken(ephemeral), Some("what ended for good runs once"));
    let all = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [43]}}]);
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "main"},
        {"name": "other", "restartPolicy": "Never", "restartPolicyRules": all}]});
    assert_eq!(broken(vec![created(spec), runs("main-0"), ends("main-0", 0), runs("main-1")]), None);
    let spec = json!({"activeDeadlineSeconds": 5, "containers": [{"name": "main"}]});
    let life = |seconds| {
        let wait = (0..seconds).map(|_| Fact::Note("time passes".to_owned()));
        [created(spec.clone()), started(2)].into_iter().chain(wait).chain([create("main")]).collect()
    };
    assert_eq!(broken(life(10)), None);
    assert_eq!(broken(life(70)), Some("a pod starts nothing after its deadline"));
}
