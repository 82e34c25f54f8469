use coracle_provider::{ImageSpec, PodNetwork, PodRef, Resources};
use jiff::Timestamp;

use super::*;

fn pod(uid: &str) -> PodRef {
    PodRef { uid: uid.into(), namespace: "ns".into(), name: "name".into() }
}

fn sandbox(id: &str, state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        id: id.into(),
        pod: pod("p"),
        attempt: 0,
        state,
        created_at: Timestamp::UNIX_EPOCH,
        network: PodNetwork { ips: vec!["10.0.0.1".parse().unwrap()], ..PodNetwork::default() },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        runtime_handler: String::new(),
        revision: Revision::default(),
    }
}

fn container(id: &str, state: ContainerState) -> ContainerStatus {
    let started = (state != ContainerState::Created).then_some(Timestamp::UNIX_EPOCH);
    ContainerStatus {
        id: id.into(),
        sandbox_id: "s".into(),
        pod: pod("p"),
        name: "c".into(),
        attempt: 0,
        state,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: started,
        finished_at: started.filter(|_| state == ContainerState::Exited),
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: ImageSpec::default(),
        image_id: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        mounts: Vec::new(),
        log_path: "/log".into(),
        resources: Resources::default(),
        revision: Revision::default(),
    }
}

/// What has been told since the last time.
fn told(events: &mut broadcast::Receiver<Event>) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(match event {
            Event::Sandbox(it) => format!("{} {:?}", it.id, it.state),
            Event::Container(it) => format!("{} {:?}", it.id, it.state),
            Event::SandboxRemoved { id, .. } | Event::ContainerRemoved { id, .. } => format!("{id} removed"),
            other => panic!("{other:?}"),
        });
    }
    told
}

fn seen(sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Seen {
    let ids = sandboxes.iter().map(|it| it.id.clone()).chain(containers.iter().map(|it| it.id.clone()));
    Seen { ids: ids.collect(), sandboxes, containers }
}

#[test]
fn an_answer_that_another_has_overtaken_changes_nothing() {
    let table = Table::new();
    let late = table.look();
    let ended = table.see_container(&table.look(), container("c", ContainerState::Exited)).unwrap();
    assert_eq!(table.see_container(&late, container("c", ContainerState::Running)).unwrap(), ended);
    let other = ContainerStatus { exit_code: 7, ..container("c", ContainerState::Exited) };
    assert_eq!(table.see_container(&late, other.clone()).unwrap(), ended, "it may be older");
    assert_eq!(table.see_container(&table.look(), other).unwrap().exit_code, 7, "it is newer");
}

#[test]
fn what_was_removed_does_not_come_back() {
    let table = Table::new();
    table.see_container(&table.look(), container("c", ContainerState::Exited));
    let late = table.look();
    let removed = table.remove_container("c");
    assert_eq!(table.remove_container("c"), removed, "twice is once");
    assert_eq!(table.see_container(&late, container("c", ContainerState::Exited)), None);
    table.see_all(&late, None, seen(Vec::new(), vec![container("c", ContainerState::Exited)]));
    assert!(table.snapshot(None).containers.is_empty());
    assert_eq!(table.inner.lock().removed.len(), 1);
    drop(late);
    assert!(table.inner.lock().removed.is_empty(), "nobody is left who could have seen it");
}

#[test]
fn a_list_removes_what_it_should_have_seen_and_keeps_what_is_newer() {
    let table = Table::new();
    table.see_container(&table.look(), container("old", ContainerState::Running));
    let look = table.look();
    table.see_container(&table.look(), container("new", ContainerState::Running));
    table.see_all(&look, Some("other"), Seen::default());
    assert_eq!(table.snapshot(None).containers.len(), 2, "they are another pod's");
    table.see_all(&look, Some("p"), Seen::default());
    let left: Vec<_> = table.snapshot(None).containers.iter().map(|it| it.id.clone()).collect();
    assert_eq!(left, ["new"]);
}

#[test]
fn a_list_tells_things_in_the_order_in_which_they_can_happen() {
    let table = Table::new();
    let mut events = table.subscribe();
    let all = seen(vec![sandbox("s", SandboxState::Ready)], vec![container("c", ContainerState::Created)]);
    table.see_all(&table.look(), None, all);
    assert_eq!(told(&mut events), ["s Ready", "c Created"]);
    let all = seen(vec![sandbox("s", SandboxState::NotReady)], vec![container("c", ContainerState::Exited)]);
    table.see_all(&table.look(), None, all);
    assert_eq!(told(&mut events), ["c Running", "c Exited", "s NotReady"], "what has ended has run");
    table.see_all(&table.look(), None, Seen::default());
    assert_eq!(told(&mut events), ["c removed", "s removed"]);
}

#[test]
fn nothing_is_told_twice() {
    let table = Table::new();
    let mut events = table.subscribe();
    let first = table.see_sandbox(&table.look(), sandbox("s", SandboxState::Ready)).unwrap();
    assert_eq!(table.see_sandbox(&table.look(), sandbox("s", SandboxState::Ready)).unwrap(), first);
    assert_eq!(told(&mut events), ["s Ready"]);
    let stopped = SandboxStatus { network: PodNetwork::default(), ..sandbox("s", SandboxState::NotReady) };
    let stopped = table.see_sandbox(&table.look(), stopped).unwrap();
    assert_eq!(stopped.network, first.network, "who had these addresses is still of interest");
    assert_eq!(table.see_sandbox(&table.look(), sandbox("s", SandboxState::Ready)).unwrap(), stopped);
}

#[test]
fn a_sandbox_takes_its_containers_with_it() {
    let table = Table::new();
    let all = seen(vec![sandbox("s", SandboxState::NotReady)], vec![container("c", ContainerState::Exited)]);
    table.see_all(&table.look(), None, all);
    let mut events = table.subscribe();
    let removed = table.remove_sandbox("s");
    assert_eq!(told(&mut events), ["c removed", "s removed"]);
    assert_eq!(table.snapshot(None).revision, removed);
}
