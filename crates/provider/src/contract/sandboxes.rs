//! Sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Program, Subject, config, pod, run, sandbox, sandbox_config, status};
use crate::{ContainerState, SandboxConfig, SandboxState};

/// Its name is that in container ids, and it is ready.
pub async fn it_says_what_it_is(subject: &impl Subject) {
    let version = subject.provider().version().await.unwrap();
    assert_eq!(version.runtime_name, subject.provider().name());
    assert!(!version.runtime_version.is_empty());
    let status = subject.provider().status().await.unwrap();
    assert!(status.runtime_ready.status && status.network_ready.status, "{status:?}");
    assert!(!status.handlers.is_empty());
    let empty = subject.provider().list().await.unwrap();
    assert!(empty.sandboxes.is_empty() && empty.containers.is_empty());
}

/// The same pod and attempt is one sandbox, also for two callers at a time; the next attempt is another.
pub async fn a_sandbox_made_twice_is_one(subject: &impl Subject) {
    let make = || subject.provider().run_sandbox(sandbox_config(subject, "p"));
    let (first, second) = tokio::join!(make(), make());
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    assert_eq!(first, make().await.unwrap());
    subject.provider().stop_sandbox(&first.id).await.unwrap();
    let next = SandboxConfig { attempt: 1, ..sandbox_config(subject, "p") };
    assert_ne!(subject.provider().run_sandbox(next).await.unwrap().id, first.id);
    assert_eq!(subject.provider().list().await.unwrap().sandboxes.len(), 2);
}

/// Labels, annotations, attempt and pod come back as they were given.
pub async fn a_sandbox_keeps_what_it_was_made_with(subject: &impl Subject) {
    let texts = |text: &str| BTreeMap::from([(format!("{text}/key"), format!("{text}\n\"value\""))]);
    let labels: BTreeMap<_, _> = super::labels("p").into_iter().chain(texts("label")).collect();
    let annotations = texts("annotation");
    let config = SandboxConfig {
        attempt: 3,
        labels: labels.clone(),
        annotations: annotations.clone(),
        ..sandbox_config(subject, "p")
    };
    let made = subject.provider().run_sandbox(config).await.unwrap();
    assert_eq!((&made.pod, made.attempt, made.state), (&pod("p"), 3, SandboxState::Ready));
    assert_eq!((&made.labels, &made.annotations), (&labels, &annotations));
    assert!(!made.network.ips.is_empty());
    assert_eq!(subject.provider().list_pod("p").await.unwrap().sandboxes, [made]);
}

/// Its containers end at once, before it; nothing starts in it any more.
pub async fn a_stopped_sandbox_takes_its_containers_with_it(subject: &impl Subject) {
    let running = run(subject, "p", Program::Stays).await;
    let mut late = config(subject, "p", Program::Stays).await;
    late.attempt = 1;
    let sandbox_id = &running.sandbox_id;
    let stopped = subject.provider().stop_sandbox(sandbox_id).await.unwrap();
    assert_eq!(stopped.state, SandboxState::NotReady);
    let ended = status(subject, &running).await;
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, 137));
    assert!(ended.revision < stopped.revision);
    assert!(subject.provider().create_container(sandbox_id, late).await.is_err());
    assert_eq!(subject.provider().stop_sandbox(sandbox_id).await.unwrap(), stopped, "twice is once");
    subject.provider().remove_sandbox(sandbox_id).await.unwrap();
    let left = subject.provider().list().await.unwrap();
    assert!(left.sandboxes.is_empty() && left.containers.is_empty(), "{left:?}");
}

/// Removing is success, everything else is `NotFound`.
pub async fn what_is_gone_is_removed_and_nothing_else_is_done_to_it(subject: &impl Subject) {
    let provider = subject.provider();
    let container = run(subject, "p", Program::Stays).await;
    provider.stop_sandbox(&container.sandbox_id).await.unwrap();
    let removed = provider.remove_container(&container.id).await.unwrap();
    assert!(provider.remove_container(&container.id).await.unwrap() >= removed);
    let removed = provider.remove_sandbox(&container.sandbox_id).await.unwrap();
    assert!(provider.remove_sandbox(&container.sandbox_id).await.unwrap() >= removed);

    let config = config(subject, "p", Program::Stays).await;
    for error in [
        provider.start_container(&container.id).await.unwrap_err(),
        provider.stop_container(&container.id, Duration::ZERO).await.unwrap_err(),
        provider.stop_sandbox(&container.sandbox_id).await.unwrap_err(),
        provider.create_container(&container.sandbox_id, config).await.unwrap_err(),
    ] {
        assert!(error.is_not_found(), "{error}");
    }
    // A pod of the same UID may come again.
    assert_eq!(sandbox(subject, "p").await.state, SandboxState::Ready);
}
