//! The trait.

mod containers;
mod images;
mod runtime;
mod sandboxes;
mod streaming;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ArtifactKind, ContainerStatus, ErrorKind, Provider, Result, SandboxStatus};
use tokio::task::AbortHandle;

use crate::bindings as cri;
use crate::client::{CgroupDriver, Client};
use crate::flights::Flights;
use crate::observe::Observer;
use crate::table::Table;

/// How long a stream of events that broke rests before it is opened again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// What to connect to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The runtime's Unix socket (`containerRuntimeEndpoint`).
    pub runtime_socket: PathBuf,
    /// The Unix socket of its images (`imageServiceEndpoint`).
    pub image_socket: PathBuf,
    /// What a call gets that has no time of its own (`runtimeRequestTimeout`).
    pub request_timeout: Duration,
    /// The period of CPU limits (`cpuCFSQuotaPeriod`); none enforces no limits (`cpuCFSQuota: false`).
    pub cpu_quota_period: Option<Duration>,
}

/// A runtime that speaks CRI. Dropping it leaves everything running.
pub struct CriProvider {
    name: &'static str,
    shared: Arc<Shared>,
    events: AbortHandle,
}

/// What calls need that go on without their caller.
struct Shared {
    observer: Observer,
    quota_period: Option<Duration>,
    sandboxes: Flights<(String, u32), Arc<SandboxStatus>>,
    containers: Flights<(String, String, u32), Arc<ContainerStatus>>,
    starts: Flights<String, Arc<ContainerStatus>>,
}

impl CriProvider {
    /// Connects to a runtime, which has to be there: its name is that in container ids.
    pub async fn connect(options: Options) -> Result<Self> {
        let client = Client::new(options.runtime_socket, options.image_socket, options.request_timeout);
        let version = client.version(cri::VersionRequest::default()).await?;
        let shared = Arc::new(Shared {
            observer: Observer { client, table: Table::new() },
            quota_period: options.cpu_quota_period,
            sandboxes: Flights::default(),
            containers: Flights::default(),
            starts: Flights::default(),
        });
        let events = tokio::spawn(follow_events(shared.clone())).abort_handle();
        Ok(Self { name: fixed_name(version.runtime_name), shared, events })
    }

    /// Who makes control groups; none if the runtime is too old to say (`getCgroupDriverFromCRI`).
    pub async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.shared.observer.client.cgroup_driver().await
    }
}

impl Drop for CriProvider {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Provider for CriProvider {
    fn name(&self) -> &'static str {
        self.name
    }

    fn runs(&self) -> ArtifactKind {
        ArtifactKind::RootFs
    }
}

/// Runtimes are few, and there is one a process.
fn fixed_name(name: String) -> &'static str {
    match name.as_str() {
        "containerd" => "containerd",
        "cri-o" => "cri-o",
        _ => name.leak(),
    }
}

/// Events are hints here, as upstream has it: each makes its pod be looked at. Who has none is found out about by lists.
async fn follow_events(shared: Arc<Shared>) {
    let observer = &shared.observer;
    loop {
        match observer.client.container_events().await {
            Ok(mut events) => {
                // While nobody listened something may have happened.
                let mut pod = None;
                loop {
                    if let Err(error) = observer.all(pod.as_deref()).await {
                        tracing::debug!(%error, "looking at a pod after an event failed");
                    }
                    match events.message().await {
                        Ok(Some(event)) => {
                            pod = event.pod_sandbox_status.and_then(|it| it.metadata).map(|it| it.uid)
                        }
                        Ok(None) => break,
                        Err(status) if status.code() == tonic::Code::Unimplemented => return,
                        Err(_) => break,
                    }
                }
            }
            Err(error) if error.kind == ErrorKind::Unimplemented => return,
            Err(error) => tracing::debug!(%error, "the runtime's events cannot be had"),
        }
        tokio::time::sleep(EVENTS_RETRY).await;
    }
}
