//! A provider in memory, for tests of the pipeline: it keeps the trait's contract and does nothing else. Tests end
//! its containers, make its calls fail or take time, and let it lose everything.

mod streaming;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::{
    ArtifactKind, Condition, ContainerConfig, ContainerState, ContainerStats, ContainerStatus, Error,
    ErrorKind, Event, EventStream, ExecSyncResponse, FsUsage, Image, ImageService, ImageSpec, LiveResize,
    MemoryStats, NetworkMode, PodNetwork, Provider, PullProgress, PullRequest, Resources, Result, Revision,
    RevisionCounter, RuntimeHandler, RuntimeService, RuntimeStatus, SandboxConfig, SandboxState,
    SandboxStatus, Snapshot, Version,
};

/// Events that a slow subscriber may be behind.
const EVENT_BUFFER: usize = 1024;

/// The calls that tests can disturb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Call {
    RunSandbox,
    StopSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    List,
    PullImage,
    ListImages,
    RemoveImage,
    ImageFsInfo,
    ReopenContainerLog,
    ExecSync,
    UpdateContainerResources,
    ContainerStats,
}

/// What comes of a command.
#[derive(Clone, Debug)]
pub struct FakeExec {
    /// How long it takes. One that takes longer than it may fails with `DeadlineExceeded`.
    pub delay: Duration,
    /// What it answers then.
    pub result: Result<ExecSyncResponse>,
}

impl FakeExec {
    /// Ends at once with this code.
    pub fn exit(exit_code: i32) -> Self {
        let result = Ok(ExecSyncResponse { exit_code, ..ExecSyncResponse::default() });
        Self { delay: Duration::ZERO, result }
    }
}

/// A provider in memory.
pub struct FakeProvider {
    name: &'static str,
    state: Mutex<State>,
    revisions: RevisionCounter,
    events: broadcast::Sender<Event>,
    now: fn() -> Timestamp,
    observer: Mutex<Option<Observer>>,
}

/// Sees every change as it happens. It must not call the provider.
type Observer = Box<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct State {
    /// How often something was made under a name, because ids are never used again.
    made: HashMap<String, usize>,
    sandboxes: BTreeMap<String, Arc<SandboxStatus>>,
    containers: BTreeMap<String, Arc<ContainerStatus>>,
    /// Where the logs of containers are, by sandbox.
    log_directories: HashMap<String, PathBuf>,
    images: HashMap<String, Image>,
    image_fs: FsUsage,
    delays: HashMap<Call, Duration>,
    errors: HashMap<Call, Error>,
    calls: HashMap<Call, usize>,
    stubborn: bool,
    addresses: u32,
    execs: HashMap<String, FakeExec>,
    executed: Vec<(String, Vec<String>)>,
    live_resize: LiveResize,
    runs: Option<ArtifactKind>,
    /// Of the newest sandbox of a pod.
    cgroup_parents: HashMap<String, String>,
    memory_usage: u64,
    /// What does not work.
    runtime_failure: Option<String>,
    network_failure: Option<String>,
}

impl State {
    /// The id of what was made last under a name, or will be first.
    fn last_id(&self, name: &str) -> String {
        match self.made.get(name) {
            Some(times @ 2..) => format!("{name}.{times}"),
            _ => name.to_owned(),
        }
    }

    fn new_id(&mut self, name: String) -> String {
        *self.made.entry(name.clone()).or_default() += 1;
        self.last_id(&name)
    }
}

impl FakeProvider {
    /// An empty provider. `now` is its clock.
    pub fn new(name: &'static str, now: fn() -> Timestamp) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let (state, revisions) = (Mutex::default(), RevisionCounter::new(1));
        Arc::new(Self { name, state, revisions, events, now, observer: Mutex::default() })
    }

    /// Lets a call take this long from now on.
    pub fn set_delay(&self, call: Call, delay: Duration) {
        self.state.lock().delays.insert(call, delay);
    }

    /// Makes a call fail from now on, or work again.
    pub fn set_error(&self, call: Call, error: Option<Error>) {
        let mut state = self.state.lock();
        match error {
            Some(error) => state.errors.insert(call, error),
            None => state.errors.remove(&call),
        };
    }

    /// Containers ignore being asked to stop, and end only with their grace period.
    pub fn set_stubborn(&self, stubborn: bool) {
        self.state.lock().stubborn = stubborn;
    }

    /// What it runs; WebAssembly if nobody says.
    pub fn set_runs(&self, runs: ArtifactKind) {
        self.state.lock().runs = Some(runs);
    }

    /// What can be changed of containers that run; nothing at first.
    pub fn set_live_resize(&self, live_resize: LiveResize) {
        self.state.lock().live_resize = live_resize;
    }

    /// Why it cannot start containers, and why it has no network for pods; nothing is wrong at first.
    pub fn set_health(&self, runtime_failure: Option<&str>, network_failure: Option<&str>) {
        let mut state = self.state.lock();
        state.runtime_failure = runtime_failure.map(str::to_owned);
        state.network_failure = network_failure.map(str::to_owned);
        drop(state);
        // Nobody may be listening.
        let _ = self.events.send(Event::StatusChanged);
    }

    /// What every container uses, in bytes.
    pub fn set_memory_usage(&self, bytes: u64) {
        self.state.lock().memory_usage = bytes;
    }

    /// What comes of commands that begin with this word. Of all others it is success.
    pub fn set_exec(&self, word: &str, exec: FakeExec) {
        self.state.lock().execs.insert(word.to_owned(), exec);
    }

    /// Every command that was begun, with the container's id.
    pub fn executed(&self) -> Vec<(String, Vec<String>)> {
        self.state.lock().executed.clone()
    }

    /// An image is present from now on.
    pub fn put_image(&self, image: Image) {
        self.state.lock().images.insert(image.id.clone(), image);
    }

    /// How full the file system of images is.
    pub fn set_image_fs(&self, usage: FsUsage) {
        self.state.lock().image_fs = usage;
    }

    /// How often a call was made.
    pub fn calls(&self, call: Call) -> usize {
        self.state.lock().calls.get(&call).copied().unwrap_or_default()
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Arc<ContainerStatus>> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// The control group that the newest sandbox of a pod was to be made in.
    pub fn cgroup_parent(&self, pod_uid: &str) -> Option<String> {
        self.state.lock().cgroup_parents.get(pod_uid).cloned()
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<Arc<SandboxStatus>> {
        self.state.lock().sandboxes.values().cloned().collect()
    }

    /// Shows every change, in order, as it happens. `observer` must not call the provider.
    pub fn observe(&self, observer: impl Fn(&Event) + Send + Sync + 'static) {
        *self.observer.lock() = Some(Box::new(observer));
    }

    /// Ends a container by itself, if it runs.
    pub fn end_container(&self, id: &str, exit_code: i32) {
        if self.container(id).is_some_and(|c| c.state == ContainerState::Running) {
            self.end(id, exit_code, if exit_code == 0 { "Completed" } else { "Error" });
        }
    }

    /// Ends the running instance of a container by itself.
    pub fn exit(&self, pod_uid: &str, name: &str, exit_code: i32) {
        let running = self
            .containers()
            .into_iter()
            .find(|c| c.pod.uid == pod_uid && c.name == name && c.state == ContainerState::Running);
        if let Some(container) = running {
            self.end_container(&container.id, exit_code);
        }
    }

    /// Every subscriber has missed something.
    pub fn lag(&self) {
        let _ = self.events.send(Event::Lagged);
    }

    fn emit(&self, event: Event) {
        if let Some(observer) = &*self.observer.lock() {
            observer(&event);
        }
        // Nobody may have subscribed.
        let _ = self.events.send(event);
    }

    async fn enter(&self, call: Call) -> Result<()> {
        let (delay, error) = {
            let mut state = self.state.lock();
            *state.calls.entry(call).or_default() += 1;
            (state.delays.get(&call).copied(), state.errors.get(&call).cloned())
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        error.map_or(Ok(()), Err)
    }

    fn update_container(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerStatus),
    ) -> Result<Arc<ContainerStatus>> {
        let mut state = self.state.lock();
        let old = state.containers.get(id).ok_or_else(|| Error::not_found(format!("no container {id}")))?;
        let mut new = (**old).clone();
        change(&mut new);
        new.revision = self.revisions.next();
        let new = Arc::new(new);
        state.containers.insert(id.to_owned(), new.clone());
        self.emit(Event::Container(new.clone()));
        Ok(new)
    }

    fn end(&self, id: &str, exit_code: i32, reason: &str) {
        let now = (self.now)();
        // It may be gone already.
        let _ = self.update_container(id, |c| {
            c.state = ContainerState::Exited;
            c.exit_code = exit_code;
            c.reason = reason.to_owned();
            c.finished_at = Some(now);
        });
    }

    fn container(&self, id: &str) -> Option<Arc<ContainerStatus>> {
        self.state.lock().containers.get(id).cloned()
    }
}

#[async_trait]
impl RuntimeService for FakeProvider {
    async fn version(&self) -> Result<Version> {
        Ok(Version { runtime_name: self.name.to_owned(), runtime_version: "1".to_owned() })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let handlers = vec![RuntimeHandler::default(), RuntimeHandler { name: self.name.to_owned() }];
        let condition = |failure: &Option<String>| match failure {
            Some(message) => Condition::failed("NotReady", message.clone()),
            None => Condition::ok(),
        };
        let state = self.state.lock();
        let (runtime_ready, network_ready) =
            (condition(&state.runtime_failure), condition(&state.network_failure));
        Ok(RuntimeStatus { runtime_ready, network_ready, handlers })
    }

    fn subscribe(&self) -> EventStream {
        let events = BroadcastStream::new(self.events.subscribe());
        let lagged = |event| async move {
            Some(match event {
                Ok(event) => event,
                Err(BroadcastStreamRecvError::Lagged(_)) => Event::Lagged,
            })
        };
        events.filter_map(lagged).boxed()
    }

    async fn list(&self) -> Result<Snapshot> {
        let revision = self.revisions.current();
        self.enter(Call::List).await?;
        Ok(Snapshot { revision, sandboxes: self.sandboxes(), containers: self.containers() })
    }

    async fn list_pod(&self, pod_uid: &str) -> Result<Snapshot> {
        let mut all = self.list().await?;
        all.sandboxes.retain(|s| s.pod.uid == pod_uid);
        all.containers.retain(|c| c.pod.uid == pod_uid);
        Ok(all)
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        self.enter(Call::RunSandbox).await?;
        let name = format!("{}-sandbox-{}", config.pod.uid, config.attempt);
        let mut state = self.state.lock();
        if let Some(existing) = state.sandboxes.get(&state.last_id(&name)) {
            return Ok(existing.clone());
        }
        let id = state.new_id(name);
        state.cgroup_parents.insert(config.pod.uid.clone(), config.linux.cgroup_parent.clone());
        state.addresses += 1;
        let ips = match config.network {
            NetworkMode::Pod => vec![IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + state.addresses))],
            NetworkMode::Node => Vec::new(),
        };
        let status = Arc::new(SandboxStatus {
            id: id.clone(),
            pod: config.pod,
            attempt: config.attempt,
            state: SandboxState::Ready,
            created_at: (self.now)(),
            network: PodNetwork { mode: config.network, ips, namespace: None },
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: config.runtime_handler,
            revision: self.revisions.next(),
        });
        state.log_directories.insert(id.clone(), config.log_directory);
        state.sandboxes.insert(id, status.clone());
        self.emit(Event::Sandbox(status.clone()));
        Ok(status)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        self.enter(Call::StopSandbox).await?;
        for container in self.containers() {
            if container.sandbox_id == id && container.state == ContainerState::Running {
                self.end(&container.id, 137, "Error");
            }
        }
        let mut state = self.state.lock();
        let old = state.sandboxes.get(id).ok_or_else(|| Error::not_found(format!("no sandbox {id}")))?;
        if old.state == SandboxState::NotReady {
            return Ok(old.clone());
        }
        let revision = self.revisions.next();
        let new = Arc::new(SandboxStatus { state: SandboxState::NotReady, revision, ..(**old).clone() });
        state.sandboxes.insert(id.to_owned(), new.clone());
        self.emit(Event::Sandbox(new.clone()));
        Ok(new)
    }

    async fn remove_sandbox(&self, id: &str) -> Result<Revision> {
        let mut state = self.state.lock();
        if state.sandboxes.get(id).is_some_and(|s| s.state == SandboxState::Ready) {
            return Err(Error::invalid(format!("sandbox {id} is not stopped")));
        }
        let inside: Vec<_> = state.containers.values().filter(|c| c.sandbox_id == id).cloned().collect();
        for container in inside {
            state.containers.remove(&container.id);
            let (pod, id) = (container.pod.clone(), container.id.clone());
            self.emit(Event::ContainerRemoved { pod, id, revision: self.revisions.next() });
        }
        let revision = self.revisions.next();
        if let Some(old) = state.sandboxes.remove(id) {
            let (pod, id) = (old.pod.clone(), id.to_owned());
            self.emit(Event::SandboxRemoved { pod, id, revision });
        }
        Ok(revision)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        self.enter(Call::CreateContainer).await?;
        let name = format!("{sandbox_id}-{}-{}", config.name, config.attempt);
        let mut state = self.state.lock();
        if let Some(existing) = state.containers.get(&state.last_id(&name)) {
            return Ok(existing.clone());
        }
        let sandbox = state.sandboxes.get(sandbox_id).filter(|s| s.state == SandboxState::Ready);
        let sandbox = sandbox.ok_or_else(|| Error::not_found(format!("no ready sandbox {sandbox_id}")))?;
        let pod = sandbox.pod.clone();
        let id = state.new_id(name);
        // Without a log there is no place for it either.
        let log_directory =
            state.log_directories.get(sandbox_id).filter(|_| config.log_path != PathBuf::new());
        let log_path = log_directory.map_or_else(PathBuf::new, |it| it.join(&config.log_path));
        let status = Arc::new(ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            pod,
            name: config.name,
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: (self.now)(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image_id: config.image_ref,
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path,
            resources: config.resources,
            revision: self.revisions.next(),
        });
        state.containers.insert(id, status.clone());
        self.emit(Event::Container(status.clone()));
        Ok(status)
    }

    fn live_resize(&self) -> LiveResize {
        self.state.lock().live_resize
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
    ) -> Result<Arc<ContainerStatus>> {
        self.enter(Call::UpdateContainerResources).await?;
        self.update_container(id, |c| c.resources = resources)
    }

    async fn container_stats(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStats>> {
        self.enter(Call::ContainerStats).await?;
        let (containers, usage) = (self.containers(), self.state.lock().memory_usage);
        let running = containers.iter().filter(|c| c.state == ContainerState::Running);
        let wanted = running.filter(|c| pod_uid.is_none_or(|uid| c.pod.uid == uid));
        let stats = |c: &Arc<ContainerStatus>| ContainerStats {
            id: c.id.clone(),
            pod: c.pod.clone(),
            name: c.name.clone(),
            timestamp: (self.now)(),
            cpu_usage_core_nanos: 0,
            memory: MemoryStats { working_set_bytes: usage, usage_bytes: usage, rss_bytes: usage },
            writable_layer: None,
            traps: None,
        };
        Ok(wanted.map(stats).collect())
    }

    async fn start_container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        self.enter(Call::StartContainer).await?;
        let found = self.container(id).ok_or_else(|| Error::not_found(format!("no container {id}")))?;
        if found.state != ContainerState::Created {
            return Ok(found);
        }
        let sandbox = self.state.lock().sandboxes.get(&found.sandbox_id).cloned();
        if sandbox.is_none_or(|s| s.state != SandboxState::Ready) {
            return Err(Error::not_found(format!("no ready sandbox {}", found.sandbox_id)));
        }
        let now = (self.now)();
        self.update_container(id, |c| {
            c.state = ContainerState::Running;
            c.started_at = Some(now);
        })
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Arc<ContainerStatus>> {
        self.enter(Call::StopContainer).await?;
        let stubborn = self.state.lock().stubborn;
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        let found = self.container(id).ok_or_else(|| Error::not_found(format!("no container {id}")))?;
        if found.state == ContainerState::Running {
            self.end(id, if stubborn { 137 } else { 143 }, "Error");
        }
        self.container(id).ok_or_else(|| Error::not_found(format!("no container {id}")))
    }

    async fn remove_container(&self, id: &str) -> Result<Revision> {
        self.enter(Call::RemoveContainer).await?;
        let mut state = self.state.lock();
        if state.containers.get(id).is_some_and(|c| c.state == ContainerState::Running) {
            return Err(Error::invalid(format!("container {id} is running")));
        }
        let revision = self.revisions.next();
        if let Some(old) = state.containers.remove(id) {
            let (pod, id) = (old.pod.clone(), id.to_owned());
            self.emit(Event::ContainerRemoved { pod, id, revision });
        }
        Ok(revision)
    }

    /// Its containers write nothing, so there is nothing to open.
    async fn reopen_container_log(&self, _id: &str) -> Result<()> {
        self.enter(Call::ReopenContainerLog).await
    }
}

#[async_trait]
impl ImageService for FakeProvider {
    async fn pull_image(
        &self,
        request: PullRequest,
        _progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Image> {
        self.enter(Call::PullImage).await?;
        let name = request.image.image;
        if name.contains("missing") {
            return Err(Error::new(ErrorKind::ImageUnusable, format!("image {name:?} was not found")));
        }
        let image = Image {
            id: format!("sha256:{name}"),
            repo_tags: vec![name.clone()],
            repo_digests: Vec::new(),
            size_bytes: 1,
            kind: ArtifactKind::Wasm,
            uid: None,
            username: String::new(),
            annotations: BTreeMap::new(),
            pinned: false,
        };
        self.state.lock().images.insert(name, image.clone());
        Ok(image)
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        if image.image.is_empty() {
            return Err(Error::new(ErrorKind::InvalidImageName, "the image reference is empty"));
        }
        let state = self.state.lock();
        let by_id = || state.images.values().find(|it| it.id == image.image);
        Ok(state.images.get(&image.image).or_else(by_id).cloned())
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.enter(Call::ListImages).await?;
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        self.enter(Call::RemoveImage).await?;
        self.state.lock().images.retain(|name, present| *name != image.image && present.id != image.image);
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<Vec<FsUsage>> {
        self.enter(Call::ImageFsInfo).await?;
        Ok(vec![self.state.lock().image_fs.clone()])
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        self.name
    }

    fn runs(&self) -> ArtifactKind {
        self.state.lock().runs.unwrap_or(ArtifactKind::Wasm)
    }
}
