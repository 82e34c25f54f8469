//! Events, lists and their order.

use std::time::Duration;

use futures::StreamExt as _;

use super::{Program, Subject, run, sandbox, until};
use crate::{ContainerState, Event, SandboxState};

/// From the first to the last of a pod, and no list is older than what was told.
pub async fn every_change_is_an_event_in_the_order_of_revisions(subject: &impl Subject) {
    let provider = subject.provider();
    let mut events = provider.subscribe();
    let mut last = provider.list().await.unwrap().revision;
    let container = run(subject, "p", Program::Exits(0)).await;
    until(subject, &container, ContainerState::Exited).await;
    provider.stop_sandbox(&container.sandbox_id).await.unwrap();
    provider.remove_container(&container.id).await.unwrap();
    provider.remove_sandbox(&container.sandbox_id).await.unwrap();

    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("sandbox removed") {
        let (what, revision) = match events.next().await.expect("the stream does not end") {
            Event::Sandbox(status) => (format!("sandbox {:?}", status.state), status.revision),
            Event::Container(status) => (format!("container {:?}", status.state), status.revision),
            Event::SandboxRemoved { revision, .. } => ("sandbox removed".into(), revision),
            Event::ContainerRemoved { revision, .. } => ("container removed".into(), revision),
            other => panic!("{other:?}"),
        };
        assert!(revision > last, "{what}");
        last = revision;
        seen.push(what);
    }
    let expected = [
        "sandbox Ready",
        "container Created",
        "container Running",
        "container Exited",
        "sandbox NotReady",
        "container removed",
        "sandbox removed",
    ];
    assert_eq!(seen, expected);
    assert!(provider.list().await.unwrap().revision >= last);
}

/// What a call answered before a list began is in the list.
pub async fn a_list_is_at_least_as_new_as_it_says(subject: &impl Subject) {
    let provider = subject.provider();
    let container = run(subject, "p", Program::Stays).await;
    let list = provider.list().await.unwrap();
    assert!(list.revision >= container.revision);
    assert_eq!(list.containers, std::slice::from_ref(&container));
    let stopped = provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    let list = provider.list().await.unwrap();
    assert!(list.revision >= stopped.revision);
    assert_eq!(list.containers, [stopped]);
    assert!(list.sandboxes.iter().all(|sandbox| sandbox.state == SandboxState::Ready));
}

/// Other pods are not in it, and a pod that nobody knows is empty.
pub async fn a_list_of_a_pod_is_of_that_pod(subject: &impl Subject) {
    let (one, other) = (run(subject, "one", Program::Stays).await, sandbox(subject, "other").await);
    let list = subject.provider().list_pod("one").await.unwrap();
    assert_eq!((list.sandboxes.len(), list.containers), (1, vec![one]));
    let list = subject.provider().list_pod("other").await.unwrap();
    assert_eq!((list.sandboxes, list.containers.len()), (vec![other], 0));
    let list = subject.provider().list_pod("nobody").await.unwrap();
    assert!(list.sandboxes.is_empty() && list.containers.is_empty());
}
