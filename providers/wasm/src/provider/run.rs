//! Starting and ending containers.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ContainerState, ContainerStatus, Error, Result, Revision};
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::container::{Container, Guest, exited};
use super::{Shared, no_container, record_error};
use crate::guest::{Outcome, Program, Service, Stop, run_main};

/// How long the end of a container waits for its last output to be in its log. A disk that hangs must not keep a
/// container from ending.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

impl Shared {
    pub(super) async fn start_container(self: Arc<Self>, id: String) -> Result<Arc<ContainerStatus>> {
        let container = self.tables.container(&id).ok_or_else(|| no_container(&id))?;
        let Some(guest) = container.begin() else { return Ok(container.status()) };
        let launched = self.clone().launch(&container, &guest).await;
        if launched.is_err() && container.begin_failed() {
            self.show_end(&container, Outcome::killed("it was stopped before it started")).await;
        }
        launched
    }

    /// Starts a guest. Until it answers with an error, nothing of the guest has run.
    async fn launch(
        self: Arc<Self>,
        container: &Arc<Container>,
        guest: &Arc<Guest>,
    ) -> Result<Arc<ContainerStatus>> {
        let running = ContainerStatus {
            state: ContainerState::Running,
            started_at: Some(Timestamp::now()),
            ..(*container.status()).clone()
        };
        match &*guest.program {
            Program::Command(command) => {
                self.prepare_to_run(guest, &running).await?;
                let work = run_main(guest.env.clone(), command.clone(), container.stop_wishes());
                Ok(self.show_start(container, guest, running, work, &self.options.control))
            }
            Program::Service { handler, .. } => {
                // A port that is taken is not the guest's fault.
                let listeners = guest.env.net.listen_tcp(guest.serving_port)?;
                self.prepare_to_run(guest, &running).await?;
                let (env, reuse, wishes) = (guest.env.clone(), guest.reuse.clone(), container.stop_wishes());
                let limits = self.options.services.clone();
                Ok(match Service::prepare(env, handler.clone(), limits, reuse, wishes).await {
                    Ok(service) => {
                        let work = service.serve(listeners, container.stop_wishes());
                        self.show_start(container, guest, running, work, &self.options.io)
                    }
                    Err(outcome) => {
                        self.tables.update_container(container, running);
                        self.end(container, guest, outcome).await
                    }
                })
            }
        }
    }

    /// Writes down that the guest runs before it does, so that after a crash nothing runs a second time; and makes its
    /// log, so that there is something to link to.
    async fn prepare_to_run(&self, guest: &Guest, running: &ContainerStatus) -> Result<()> {
        let (recorded, log) = tokio::join!(self.journal.put(running), guest.env.stdio.log().reopen());
        recorded.map_err(|error| record_error(&running.id, error))?;
        log.map_err(|error| {
            Error::internal(format!("cannot open the log {}: {error}", running.log_path.display()))
        })
    }

    fn show_start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        guest: &Arc<Guest>,
        running: ContainerStatus,
        work: impl Future<Output = Outcome> + Send + 'static,
        runtime: &Handle,
    ) -> Arc<ContainerStatus> {
        let status = self.tables.update_container(container, running);
        let (this, container, guest) = (self.clone(), container.clone(), guest.clone());
        let life = async move {
            let outcome = work.await;
            this.end(&container, &guest, outcome).await;
        };
        // When the provider ends, guests end without a word: their records say that they ran.
        self.spawner.spawn_on(life, runtime);
        status
    }

    async fn end(&self, container: &Container, guest: &Guest, outcome: Outcome) -> Arc<ContainerStatus> {
        let status = exited(&container.status(), outcome);
        guest.env.stdio.end();
        if tokio::time::timeout(LOG_PATIENCE, guest.env.stdio.log().drained()).await.is_err() {
            tracing::warn!(
                container = container.id,
                "a container has ended, and its log is not complete yet"
            );
        }
        container.end().await;
        self.record_end(container, status).await
    }

    /// Shows the end of a container that never ran.
    pub(super) async fn show_end(&self, container: &Container, outcome: Outcome) -> Arc<ContainerStatus> {
        self.record_end(container, exited(&container.status(), outcome)).await
    }

    async fn record_end(&self, container: &Container, status: ContainerStatus) -> Arc<ContainerStatus> {
        if let Err(error) = self.journal.put(&status).await {
            // It has ended all the same. If the process ends too, its exit code becomes 137.
            tracing::error!(container = container.id, %error, "cannot record the end of a container");
        }
        self.tables.update_container(container, status)
    }

    pub(super) async fn stop_container(
        &self,
        container: &Container,
        grace: Duration,
    ) -> Arc<ContainerStatus> {
        container.request_stop(Stop::within(grace));
        if container.end_unstarted() {
            return self.show_end(container, Outcome::killed("it was stopped before it started")).await;
        }
        container.wait_for_end().await
    }

    pub(super) async fn remove_container(self: Arc<Self>, id: String) -> Result<Revision> {
        let Some(container) = self.tables.container(&id) else { return Ok(self.tables.revision()) };
        if !container.end_unstarted() && container.is_started() {
            return Err(Error::invalid(format!("container {id} runs: stop it before it is removed")));
        }
        self.clean_up(&id).await;
        self.journal.remove::<ContainerStatus>(&id).await.map_err(|error| record_error(&id, error))?;
        Ok(self.tables.remove_container(&id))
    }
}
