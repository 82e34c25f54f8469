//! A provider that is slow, refuses calls, loses answers and events, and goes away for a while. What it does itself is
//! the fake provider's.

mod events;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::clock;
use coracle_provider::fake::FakeProvider;
use coracle_provider::{
    ArtifactKind, Condition, ContainerConfig, ContainerState, ContainerStats, ContainerStatus, Error,
    ErrorKind, Event, EventStream, ExecSyncResponse, FsUsage, Image, ImageService, ImageSpec, LiveResize,
    Provider, PullProgress, PullRequest, Resources, Result, Revision, RuntimeService, RuntimeStatus,
    SandboxConfig, SandboxState, SandboxStatus, Snapshot, StreamingService, Version,
};
use tokio::sync::{Notify, mpsc};

use crate::dice::Dice;
use crate::faults::{Faults, ProviderFaults};
use crate::history::{Fact, History};
use crate::lives::Lives;

/// What some providers cannot do.
pub(crate) const CANNOT_RESIZE: &str = "another share of the processors";

/// A provider of the simulation.
pub(crate) struct SimProvider {
    inner: Arc<FakeProvider>,
    own: ProviderFaults,
    faults: Arc<Faults>,
    lives: Arc<Lives>,
    dice: Dice,
    history: Arc<History>,
    down: AtomicBool,
    went_down: Notify,
}

impl SimProvider {
    pub(crate) fn new(
        name: &'static str,
        own: ProviderFaults,
        faults: Arc<Faults>,
        lives: Arc<Lives>,
        dice: Dice,
        history: Arc<History>,
    ) -> Arc<Self> {
        let inner = FakeProvider::new(name, clock::now);
        inner.set_live_resize(LiveResize { cpu: own.is_fast(), memory: true });
        let observer = history.clone();
        inner.observe(move |event| tell(&observer, event));
        let (down, went_down) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { inner, own, faults, lives, dice, history, down, went_down })
    }

    pub(crate) fn inner(&self) -> &Arc<FakeProvider> {
        &self.inner
    }

    /// The provider goes away, and comes back; what it runs goes on.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
        self.history.note("", format!("{} is {}", self.name(), if down { "down" } else { "up" }));
        if down {
            self.went_down.notify_waiters();
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn check_up(&self) -> Result<()> {
        if self.is_down() {
            return Err(Error::new(ErrorKind::Unavailable, "connection refused"));
        }
        Ok(())
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        self.check_up()?;
        tokio::time::sleep(self.own.delay(&self.faults, &self.dice)).await;
        self.check_up()?;
        if let Some(error) = self.own.refusal(&self.faults, &self.dice) {
            return Err(error);
        }
        let result = read.await;
        tokio::time::sleep(self.own.delay(&self.faults, &self.dice)).await;
        result
    }

    /// A change goes on in a task of its own, whoever waits for it.
    async fn change<T: Send + 'static>(
        self: Arc<Self>,
        uid: &str,
        what: String,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.check_up()?;
        let (uid, life) = (uid.to_owned(), self.history.agent_lives());
        let task = tokio::spawn(async move {
            tokio::time::sleep(self.own.delay(&self.faults, &self.dice)).await;
            self.check_up()?;
            if self.history.agent_lives() != life {
                self.history.tell(&uid, Fact::Belated);
            }
            if let Some(error) = self.own.refusal(&self.faults, &self.dice) {
                self.history.note("", format!("{}: {what} refused", self.name()));
                return Err(error);
            }
            let result = change.await;
            tokio::time::sleep(self.own.delay(&self.faults, &self.dice)).await;
            if self.is_down() || self.own.loses_answer(&self.faults, &self.dice) {
                self.history.note("", format!("{}: {what} was done, its answer is lost", self.name()));
                return Err(Error::new(ErrorKind::DeadlineExceeded, "no answer"));
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
    }

    fn uid_of(&self, container_id: &str) -> String {
        let found = self.inner.containers().into_iter().find(|c| c.id == container_id);
        found.map(|c| c.pod.uid.clone()).unwrap_or_default()
    }

    /// The container ends by itself, if it is one that does.
    fn live(&self, started: &ContainerStatus) {
        let Some((code, after)) = self.lives.start(&started.pod.uid, &started.name) else { return };
        let (inner, id) = (self.inner.clone(), started.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            inner.end_container(&id, code);
        });
    }
}

fn tell(history: &History, event: &Event) {
    match event {
        Event::Sandbox(s) => {
            let (id, ready) = (s.id.clone(), s.state == SandboxState::Ready);
            history.tell(&s.pod.uid, Fact::Sandbox { id, ready });
        }
        Event::Container(c) => {
            let fact = Fact::Container {
                id: c.id.clone(),
                name: c.name.clone(),
                sandbox: c.sandbox_id.clone(),
                state: c.state,
                exit_code: c.exit_code,
            };
            history.tell(&c.pod.uid, fact);
        }
        Event::SandboxRemoved { pod, id, .. } => history.tell(&pod.uid, Fact::SandboxGone { id: id.clone() }),
        Event::ContainerRemoved { pod, id, .. } => {
            history.tell(&pod.uid, Fact::ContainerGone { id: id.clone() });
        }
        Event::Lagged | Event::StatusChanged => {}
    }
}

/// The provider as the agent has it: calls need it shared.
pub(crate) struct Served(pub(crate) Arc<SimProvider>);

#[async_trait]
impl RuntimeService for Served {
    async fn version(&self) -> Result<Version> {
        self.0.inner.version().await
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        self.0.check_up()?;
        let mut status = self.0.inner.status().await?;
        if self.0.own.refusal(&self.0.faults, &self.0.dice).is_some() {
            status.network_ready = Condition::failed("NetworkPluginNotReady", "no network");
        }
        Ok(status)
    }

    fn subscribe(&self) -> EventStream {
        events::subscribe(self.0.clone())
    }

    async fn list(&self) -> Result<Snapshot> {
        self.0.read(self.0.inner.list()).await
    }

    async fn list_pod(&self, pod_uid: &str) -> Result<Snapshot> {
        self.0.read(self.0.inner.list_pod(pod_uid)).await
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        let inner = self.0.inner.clone();
        let uid = config.pod.uid.clone();
        self.0
            .clone()
            .change(&uid, "run_sandbox".to_owned(), async move { inner.run_sandbox(config).await })
            .await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        let (inner, id) = (self.0.inner.clone(), id.to_owned());
        self.0
            .clone()
            .change("", format!("stop_sandbox {id}"), async move { inner.stop_sandbox(&id).await })
            .await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<Revision> {
        let (inner, id) = (self.0.inner.clone(), id.to_owned());
        let what = format!("remove_sandbox {id}");
        self.0.clone().change("", what, async move { inner.remove_sandbox(&id).await }).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        mut config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        let uid = config.labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
        let (name, sandbox) = (config.name.clone(), sandbox_id.to_owned());
        self.0.history.tell(&uid, Fact::CreateCalled { name, sandbox: sandbox.clone() });
        // There are no files.
        config.log_path = std::path::PathBuf::new();
        let inner = self.0.inner.clone();
        let what = format!("create_container {} in {sandbox}", config.name);
        self.0.clone().change(&uid, what, async move { inner.create_container(&sandbox, config).await }).await
    }

    async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        let (this, id, uid) = (self.0.clone(), id.to_owned(), self.0.uid_of(id));
        let start = async move {
            let had_started = this.inner.containers().iter().any(|c| c.id == id && c.started_at.is_some());
            let started = this.inner.start_container(&id).await?;
            if !had_started {
                this.live(&started);
            }
            Ok(started)
        };
        self.0.clone().change(&uid, "start_container".to_owned(), start).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>> {
        self.0.history.tell(&self.0.uid_of(id), Fact::StopCalled { id: id.to_owned(), grace });
        let (inner, id) = (self.0.inner.clone(), id.to_owned());
        let reaction = self.0.lives.reaction().min(grace);
        let what = format!("stop_container {id}");
        let stop = async move {
            if inner.containers().iter().any(|c| c.id == id && c.state == ContainerState::Running) {
                tokio::time::sleep(reaction).await;
            }
            inner.stop_container(&id, Duration::ZERO).await
        };
        self.0.clone().change("", what, stop).await
    }

    async fn remove_container(&self, id: &str) -> Result<Revision> {
        let (inner, id) = (self.0.inner.clone(), id.to_owned());
        let what = format!("remove_container {id}");
        self.0.clone().change("", what, async move { inner.remove_container(&id).await }).await
    }

    fn live_resize(&self) -> LiveResize {
        self.0.inner.live_resize()
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
    ) -> Result<Arc<ContainerStatus>> {
        let (inner, id, uid) = (self.0.inner.clone(), id.to_owned(), self.0.uid_of(id));
        let what = format!("update_container_resources {id}");
        let cpu = |resources: &Resources| (resources.cpu_limit_millis, resources.cpu_request_millis);
        let update = async move {
            let container = inner.containers().into_iter().find(|c| c.id == id);
            let changes_cpu = container.is_some_and(|c| cpu(&c.resources) != cpu(&resources));
            if changes_cpu && !inner.live_resize().cpu {
                return Err(Error::unimplemented(CANNOT_RESIZE));
            }
            inner.update_container_resources(&id, resources).await
        };
        self.0.clone().change(&uid, what, update).await
    }

    async fn container_stats(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStats>> {
        self.0.read(self.0.inner.container_stats(pod_uid)).await
    }
}

#[async_trait]
impl ImageService for Served {
    async fn pull_image(
        &self,
        request: PullRequest,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Image> {
        let this = self.0.clone();
        let pull = async move {
            let long = if this.dice.chance(100) { 8000 } else { 50 };
            tokio::time::sleep(this.dice.millis(0..long)).await;
            match this.faults.pull_error(&this.dice) {
                Some(error) => Err(error),
                None => this.inner.pull_image(request, progress).await,
            }
        };
        self.0.clone().change("", "pull_image".to_owned(), pull).await
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.0.read(self.0.inner.image_status(image)).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.0.inner.list_images().await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        self.0.inner.remove_image(image).await
    }

    async fn image_fs_info(&self) -> Result<Vec<FsUsage>> {
        self.0.inner.image_fs_info().await
    }
}

#[async_trait]
impl StreamingService for Served {
    /// `probe NAME` finds out how well a container is; `hook` takes its time and may fail.
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let this = &self.0;
        this.read(this.inner.exec_sync(container_id, command, timeout)).await?;
        let failed = if let [word, probe] = command
            && word == "probe"
        {
            !this.lives.is_well(&this.uid_of(container_id), probe)
        } else {
            tokio::time::sleep(this.dice.millis(0..2500).min(timeout)).await;
            this.faults.hook_fails(&this.dice)
        };
        Ok(ExecSyncResponse { exit_code: i32::from(failed), ..ExecSyncResponse::default() })
    }
}

impl Provider for Served {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn runs(&self) -> ArtifactKind {
        self.0.inner.runs()
    }
}

impl SimProvider {
    pub(crate) fn name(&self) -> &'static str {
        Provider::name(&*self.inner)
    }
}
