//! Containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;

use super::{Program, Subject, config, create, pod, run, sandbox, status, until};
use crate::{ContainerConfig, ContainerState, ErrorKind, ImageSpec, Mount};

/// The same name and attempt in a sandbox is one container, also for two callers at a time; the next attempt is
/// another.
pub async fn a_container_made_twice_is_one(subject: &impl Subject) {
    let sandbox = sandbox(subject, "p").await;
    let config = config(subject, "p", Program::Stays).await;
    let make = || subject.provider().create_container(&sandbox.id, config.clone());
    let (first, second) = tokio::join!(make(), make());
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    assert_eq!(first, make().await.unwrap());
    let next = ContainerConfig { attempt: 1, ..config.clone() };
    assert_ne!(subject.provider().create_container(&sandbox.id, next).await.unwrap().id, first.id);
    assert_eq!(subject.provider().list().await.unwrap().containers.len(), 2);
}

/// Labels, annotations, attempt, image, mounts and pod come back as they were given.
pub async fn a_container_keeps_what_it_was_made_with(subject: &impl Subject) {
    let sandbox = sandbox(subject, "p").await;
    let texts = |text: &str| BTreeMap::from([(format!("{text}/key"), format!("{text}\n\"value\""))]);
    let config = ContainerConfig {
        name: "a-name".into(),
        attempt: 7,
        labels: super::labels("p").into_iter().chain(texts("label")).collect(),
        annotations: texts("annotation"),
        mounts: mounts(&subject.log_directory()),
        ..config(subject, "p", Program::Stays).await
    };
    let made = subject.provider().create_container(&sandbox.id, config.clone()).await.unwrap();
    assert_eq!((made.state, made.started_at, made.finished_at), (ContainerState::Created, None, None));
    assert_eq!((&made.sandbox_id, &made.pod), (&sandbox.id, &pod("p")));
    assert_eq!((&made.name, made.attempt), (&config.name, config.attempt));
    assert_eq!((&made.labels, &made.annotations), (&config.labels, &config.annotations));
    assert_eq!((&made.image, &made.mounts), (&config.image, &config.mounts));
    let runs = subject.provider().image_status(&ImageSpec::new(&made.image_id)).await.unwrap();
    assert_eq!(runs.map(|image| image.id), Some(config.image_ref), "{:?} leads to the image", made.image_id);
    assert!(made.revision > sandbox.revision);
    assert_eq!(status(subject, &made).await, made);
}

/// A folder that can only be read, and a file that can be written.
fn mounts(folder: &Path) -> Vec<Mount> {
    std::fs::create_dir_all(folder).unwrap();
    let (folder, file) = (folder.canonicalize().unwrap(), folder.canonicalize().unwrap().join("words"));
    std::fs::write(&file, "").unwrap();
    let mount = |host_path, container_path: &str, read_only| Mount {
        container_path: container_path.to_owned(),
        host_path,
        read_only,
        ..Mount::default()
    };
    vec![mount(folder, "/folder", true), mount(file, "/file/words", false)]
}

/// Starting what runs, or what has ended, answers how it is.
pub async fn a_container_runs_once_however_often_it_is_started(subject: &impl Subject) {
    let container = create(subject, "p", Program::Stays).await;
    let start = || subject.provider().start_container(&container.id);
    let (first, second) = tokio::join!(start(), start());
    let started = first.unwrap();
    assert_eq!(started, second.unwrap());
    assert_eq!((started.state, started.started_at.is_some()), (ContainerState::Running, true));
    assert!(started.revision > container.revision);
    assert_eq!(start().await.unwrap(), started);
    let stopped = subject.provider().stop_container(&container.id, Duration::ZERO).await.unwrap();
    assert_eq!(start().await.unwrap(), stopped, "what has ended is not started again");
}

/// Exit code, reason and times.
pub async fn what_ends_by_itself_says_how(subject: &impl Subject) {
    for (code, reason) in [(0, "Completed"), (7, "Error")] {
        let started = run(subject, &format!("pod-{code}"), Program::Exits(code)).await;
        let ended = until(subject, &started, ContainerState::Exited).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (code.into(), reason), "{}", ended.message);
        assert!(ended.created_at <= ended.started_at.unwrap() && ended.started_at <= ended.finished_at);
        let stopped = subject.provider().stop_container(&ended.id, Duration::ZERO).await.unwrap();
        assert_eq!(stopped, ended, "it has ended already");
    }
}

/// The answer is how it ended; a second stop, also at the same time, answers the same.
pub async fn what_is_stopped_has_ended_when_the_call_answers(subject: &impl Subject) {
    let container = run(subject, "p", Program::Stays).await;
    let stop = |grace| subject.provider().stop_container(&container.id, grace);
    let (first, second) = tokio::join!(stop(Duration::from_secs(1)), stop(Duration::ZERO));
    let stopped = first.unwrap();
    assert_eq!(stopped, second.unwrap());
    assert_eq!(stopped.state, ContainerState::Exited);
    assert!(matches!(stopped.exit_code, 137 | 143), "{}", stopped.exit_code);
    assert!(stopped.finished_at.is_some() && stopped.revision > container.revision);
    assert_eq!(stop(Duration::from_secs(1)).await.unwrap(), stopped);
    assert_eq!(status(subject, &container).await, stopped);
}

/// It never ran, and nobody has to start it to be rid of it.
pub async fn what_was_never_started_can_be_stopped_and_removed(subject: &impl Subject) {
    let container = create(subject, "p", Program::Stays).await;
    subject.provider().stop_container(&container.id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(status(subject, &container).await.started_at, None);
    subject.provider().remove_container(&container.id).await.unwrap();
    assert!(subject.provider().list().await.unwrap().containers.is_empty());
}

/// It has to be stopped first.
pub async fn what_runs_is_not_removed(subject: &impl Subject) {
    let container = run(subject, "p", Program::Stays).await;
    let error = subject.provider().remove_container(&container.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    assert_eq!(status(subject, &container).await.state, ContainerState::Running);
    subject.provider().stop_container(&container.id, Duration::ZERO).await.unwrap();
    subject.provider().remove_container(&container.id).await.unwrap();
}

/// Whoever stops waiting for a start or a stop has not stopped it.
pub async fn a_call_that_is_dropped_is_carried_out(subject: &impl Subject) {
    let container = create(subject, "p", Program::Stays).await;
    let _ = subject.provider().start_container(&container.id).now_or_never();
    until(subject, &container, ContainerState::Running).await;
    let _ = subject.provider().stop_container(&container.id, Duration::ZERO).now_or_never();
    until(subject, &container, ContainerState::Exited).await;
}
