//! Making a container: everything that can be found out about it before it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use coracle_provider::{
    ContainerConfig, ContainerState, ContainerStatus, Error, ImageSpec, Resources, Result, Revision,
    SandboxStatus,
};
use jiff::Timestamp;
use tokio::sync::oneshot;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use super::container::{Container, Guest};
use super::file_threads::FileThreads;
use super::identity::Identity;
use super::sandbox::Sandbox;
use super::{Shared, new_id, no_sandbox, not_ready, record_error};
use crate::guest::{
    ContainerEnv, ContainerMemory, ContainerStdio, CpuMeter, Program, Reuse, arguments, environment,
    open_files,
};
use crate::image::Artifact;

impl Shared {
    pub(super) async fn create_container(
        self: Arc<Self>,
        sandbox_id: String,
        config: ContainerConfig,
    ) -> Result<Arc<ContainerStatus>> {
        let sandbox = self.tables.sandbox(&sandbox_id).ok_or_else(|| no_sandbox(&sandbox_id))?;
        let is_same =
            |status: &ContainerStatus| status.name == config.name && status.attempt == config.attempt;
        if let Some(existing) = self.tables.containers_in(&sandbox).into_iter().find(|c| is_same(&c.status()))
        {
            return Ok(existing.status());
        }
        let artifact = self
            .images
            .program(&config.image_ref, &config.command, &config.args, &config.working_dir)
            .await?;
        let program =
            self.programs.get(&artifact.wasm, self.guests.files()).await.map_err(|error| Error {
                message: format!(
                    "container {:?} cannot run image {:?}: {}",
                    config.name, config.image.image, error.message
                ),
                ..error
            })?;
        let reuse = fitting(&program, &sandbox.status(), &config)?;
        let image_id = self.image_id(&artifact).await?;
        let status = new_status(&sandbox.status(), log_path(&sandbox, &config), &config, image_id);
        let (env, file_threads) = self.environment(&status, &sandbox, &config, &artifact).await?;
        let guest =
            Guest { program, env, serving_port: config.serving_port, reuse, _file_threads: file_threads };
        self.journal.put(&status).await.map_err(|error| record_error(&status.id, error))?;
        let id = status.id.clone();
        let added = self.tables.add_container(Container::new(status, guest));
        if added.is_err() {
            // Its sandbox went away meanwhile. A record that stays behind would show as a container that ended.
            let _ = self.journal.remove::<ContainerStatus>(&id).await;
            self.clean_up(&id).await;
        }
        added
    }

    async fn environment(
        &self,
        status: &ContainerStatus,
        sandbox: &Sandbox,
        config: &ContainerConfig,
        artifact: &Artifact,
    ) -> Result<(Arc<ContainerEnv>, Option<Arc<FileThreads>>)> {
        let net = sandbox.net().ok_or_else(|| not_ready(&sandbox.id))?;
        let threads = |error| Error::internal(format!("cannot start threads for guests: {error}"));
        let guests = self.guests.of(&net, &self.options.network).map_err(threads)?;
        let identity = Identity::of(&config.linux.security, &artifact.config.user).map_err(|error| {
            Error::invalid(format!(
                "container {:?} cannot run image {:?}: {error}",
                config.name, config.image.image
            ))
        })?;
        let place = (&sandbox.file_threads, &*net, &self.options.network);
        let file_threads =
            self.guests.file_threads(place, &config.name, &config.mounts, identity).map_err(threads)?;
        let files = self.open_mounts(&status.id, sandbox, config).await?;
        let image = &artifact.config;
        let working_dir =
            if config.working_dir.is_empty() { &image.working_dir } else { &config.working_dir };
        let environment = environment(&sandbox.hostname, image, &config.envs);
        let log = self.logs.log(status.log_path.clone());
        let env = Arc::new(ContainerEnv {
            arguments: arguments(artifact, &config.image.image, &config.command, &config.args),
            config: Arc::new(environment.iter().cloned().collect()),
            environment,
            working_dir: working_dir.clone(),
            files,
            stdio: ContainerStdio::new(log, config.stdin, config.stdin_once, config.tty),
            memory: ContainerMemory::new(self.memory_limit(&config.resources)),
            cpu: Arc::new(CpuMeter::default()),
            traps: AtomicU64::default(),
            net,
            engine: self.engine.clone(),
            guests,
            file_context: file_threads.as_ref().map(|threads| threads.context().clone()),
        });
        Ok((env, file_threads))
    }

    async fn open_mounts(
        &self,
        id: &str,
        sandbox: &Sandbox,
        config: &ContainerConfig,
    ) -> Result<WasiFilesystemCtx> {
        let (mounts, private) = (config.mounts.clone(), self.private_folder(id));
        let (root, resolv_conf) = (self.options.root.clone(), sandbox.resolv_conf.clone());
        let may_hang = mounts.iter().any(|mount| mount.of_node);
        let open = move || open_files(&mounts, &resolv_conf, &private, &root);
        let opened = if may_hang {
            apart(open).await
        } else {
            self.guests.files().spawn_blocking(open).await.map_err(std::io::Error::other)
        };
        match opened.map_err(|error| Error::internal(format!("cannot open mounts: {error}")))? {
            Ok(files) => Ok(files),
            Err(error) => {
                self.clean_up(id).await;
                let message = format!("container {:?}: {error}", config.name);
                Err(if error.permanent { Error::invalid(message) } else { Error::internal(message) })
            }
        }
    }

    /// The image with its digest: by a name that leads to it from anywhere, if it has one.
    async fn image_id(&self, artifact: &Artifact) -> Result<String> {
        let image = self.images.status(&ImageSpec::new(&artifact.manifest_digest)).await?;
        let name = image.and_then(|image| image.repo_digests.into_iter().next());
        Ok(name.unwrap_or_else(|| artifact.manifest_digest.clone()))
    }

    pub(super) fn memory_limit(&self, resources: &Resources) -> u64 {
        resources.memory_limit_bytes.unwrap_or(self.options.guests.default_memory_bytes)
    }

    /// Where single files that a container mounts are gathered.
    fn private_folder(&self, id: &str) -> PathBuf {
        self.mounts_folder().join(id)
    }

    /// Removes what a container has on disk besides its record and its log.
    pub(super) async fn clean_up(&self, id: &str) {
        let folder = self.private_folder(id);
        let removal = self.guests.files().spawn_blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove a container's folder");
            }
            _ => {}
        });
        // It fails only when the provider ends; opening it again sweeps the folder.
        let _ = removal.await;
    }
}

/// Does what may hang for ever on a thread of its own. There is one for each container that is being made.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("wasm-mounts".into()).spawn(move || {
        // Nobody waits any more if the provider has ended.
        let _ = done.send(work());
    })?;
    result.await.map_err(std::io::Error::other)
}

/// How a service uses its instances, after refusing by name what a container asks for and its program cannot have.
fn fitting(program: &Program, sandbox: &SandboxStatus, config: &ContainerConfig) -> Result<Reuse> {
    let Program::Service { handler, .. } = program else { return Ok(Reuse::default()) };
    let feature = match config {
        ContainerConfig { tty: true, .. } => "a terminal (`tty: true`)",
        ContainerConfig { stdin: true, .. } => "open standard input (`stdin: true`)",
        _ => {
            let reuse = Reuse::from_annotations(&sandbox.annotations, handler.is_p3());
            return reuse.map_err(|error| Error::invalid(error.to_string()));
        }
    };
    Err(Error::invalid(format!(
        "container {:?} wants {feature}, and its program is an HTTP service, whose instances live for requests",
        config.name
    )))
}

fn log_path(sandbox: &Sandbox, config: &ContainerConfig) -> PathBuf {
    sandbox.log_directory.join(&config.log_path)
}

fn new_status(
    sandbox: &SandboxStatus,
    log_path: PathBuf,
    config: &ContainerConfig,
    image_id: String,
) -> ContainerStatus {
    ContainerStatus {
        id: new_id(),
        sandbox_id: sandbox.id.clone(),
        pod: sandbox.pod.clone(),
        name: config.name.clone(),
        attempt: config.attempt,
        state: ContainerState::Created,
        created_at: Timestamp::now(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: config.image.clone(),
        image_id,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path,
        resources: config.resources.clone(),
        revision: Revision::default(),
    }
}
