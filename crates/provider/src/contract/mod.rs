//! What every provider must do, as a suite that any of them can be put through: [`provider_contract!`](crate::provider_contract)
//! makes a test of each rule.

// What is here are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod containers;
mod events;
mod images;
mod sandboxes;

pub use containers::*;
pub use events::*;
pub use images::*;
pub use sandboxes::*;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    ContainerConfig, ContainerState, ContainerStatus, ImageSpec, PodRef, Provider, PullRequest,
    SandboxConfig, SandboxStatus,
};

/// Longer than anything here takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a container of the suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Runs until it is stopped.
    Stays,
    /// Ends by itself with this exit code.
    Exits(u8),
}

/// A provider under test, empty.
pub trait Subject: Send + Sync {
    /// It.
    fn provider(&self) -> &dyn Provider;

    /// An image that it can pull, and the arguments with which a container of it does this.
    fn program(&self, program: Program) -> (String, Vec<String>);

    /// The name of an image that cannot be pulled.
    fn missing_image(&self) -> String;

    /// A folder for logs.
    fn log_directory(&self) -> PathBuf;
}

/// One test for each rule of the contract. `$start` is an expression that answers a future of a [`Subject`].
#[macro_export]
macro_rules! provider_contract {
    ($start:expr) => {
        $crate::provider_contract! { $start;
            it_says_what_it_is,
            a_sandbox_made_twice_is_one,
            a_sandbox_keeps_what_it_was_made_with,
            a_stopped_sandbox_takes_its_containers_with_it,
            what_is_gone_is_removed_and_nothing_else_is_done_to_it,
            a_container_made_twice_is_one,
            a_container_keeps_what_it_was_made_with,
            a_container_runs_once_however_often_it_is_started,
            what_ends_by_itself_says_how,
            what_is_stopped_has_ended_when_the_call_answers,
            what_was_never_started_can_be_stopped_and_removed,
            what_runs_is_not_removed,
            a_call_that_is_dropped_is_carried_out,
            every_change_is_an_event_in_the_order_of_revisions,
            a_list_is_at_least_as_new_as_it_says,
            a_list_of_a_pod_is_of_that_pod,
            an_image_is_there_once_it_is_pulled_and_until_it_is_removed,
            an_image_that_is_not_there_is_told,
        }
    };
    ($start:expr; $($rule:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                let subject = $start.await;
                $crate::contract::within($crate::contract::$rule(&subject)).await;
            }
        )+
    };
}

/// Waits, but not for ever.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

/// A pod of this UID.
fn pod(uid: &str) -> PodRef {
    PodRef { uid: uid.into(), namespace: "ns".into(), name: format!("{uid}-name") }
}

/// Those by which runtimes find what is a pod's.
fn labels(uid: &str) -> BTreeMap<String, String> {
    let pod = pod(uid);
    let labels = [("uid", pod.uid), ("namespace", pod.namespace), ("name", pod.name)];
    labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value)).into()
}

fn sandbox_config(subject: &impl Subject, uid: &str) -> SandboxConfig {
    let log_directory = subject.log_directory().join(uid);
    SandboxConfig { pod: pod(uid), labels: labels(uid), log_directory, ..SandboxConfig::default() }
}

async fn sandbox(subject: &impl Subject, uid: &str) -> Arc<SandboxStatus> {
    subject.provider().run_sandbox(sandbox_config(subject, uid)).await.unwrap()
}

/// The configuration of a container `c` of this pod, whose image has been pulled.
async fn config(subject: &impl Subject, uid: &str, program: Program) -> ContainerConfig {
    let (image, args) = subject.program(program);
    let image = ImageSpec::new(image);
    let request = PullRequest { image: image.clone(), ..PullRequest::default() };
    let image_ref = subject.provider().pull_image(request, None).await.unwrap().id;
    ContainerConfig {
        name: "c".into(),
        image,
        image_ref,
        args,
        log_path: "c/0.log".into(),
        labels: labels(uid),
        sandbox: Arc::new(sandbox_config(subject, uid)),
        ..ContainerConfig::default()
    }
}

/// A container in a sandbox of its own.
async fn create(subject: &impl Subject, uid: &str, program: Program) -> Arc<ContainerStatus> {
    let (sandbox, config) = (sandbox(subject, uid).await, config(subject, uid, program).await);
    subject.provider().create_container(&sandbox.id, config).await.unwrap()
}

async fn run(subject: &impl Subject, uid: &str, program: Program) -> Arc<ContainerStatus> {
    let container = create(subject, uid, program).await;
    subject.provider().start_container(&container.id).await.unwrap()
}

async fn status(subject: &impl Subject, container: &ContainerStatus) -> Arc<ContainerStatus> {
    let snapshot = subject.provider().list_pod(&container.pod.uid).await.unwrap();
    snapshot.containers.into_iter().find(|status| status.id == container.id).expect("it is there")
}

async fn until(
    subject: &impl Subject,
    container: &ContainerStatus,
    state: ContainerState,
) -> Arc<ContainerStatus> {
    loop {
        let status = status(subject, container).await;
        if status.state == state {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
