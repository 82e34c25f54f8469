//! The provider: sandboxes, containers and images as `coracle-provider` describes them.

mod container;
mod create;
mod file_threads;
mod host_ports;
mod identity;
mod images;
mod programs;
mod resize;
mod run;
mod runtime;
mod runtimes;
mod sandbox;
mod single_flight;
mod spawner;
mod streaming;
mod tables;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_provider::{ContainerStatus, Error, ErrorKind, Result, SandboxStatus};
use rustix::fs::{FlockOperation, flock};

use self::container::Container;
use self::programs::Programs;
use self::runtimes::GuestRuntimes;
use self::sandbox::Sandbox;
use self::single_flight::SingleFlight;
use self::spawner::Spawner;
use self::tables::Tables;
use crate::compile::{Compiler, one_line};
use crate::engine::Engine;
use crate::image::ImageStore;
use crate::journal::{Journal, Records};
use crate::logs::LogWriter;
use crate::options::Options;

/// Runs WebAssembly modules and components as containers, in this process.
///
/// Dropping it ends all guests; what they were doing is not recorded as an end, and shows as one (137) when the
/// provider is opened again. [`shut_down`](Self::shut_down) does the same and waits.
pub struct WasmProvider {
    shared: Arc<Shared>,
}

/// What the provider's tasks have in common.
struct Shared {
    options: Options,
    tables: Tables,
    journal: Journal,
    logs: LogWriter,
    engine: Arc<Engine>,
    guests: GuestRuntimes,
    programs: Arc<Programs>,
    images: Arc<ImageStore>,
    flights: Flights,
    spawner: Spawner,
    /// Keeps other processes out of the folder.
    _lock: File,
}

/// Changes that are going on, by what they change.
#[derive(Default)]
struct Flights {
    run_sandbox: SingleFlight<(String, u32), Arc<SandboxStatus>>,
    stop_sandbox: SingleFlight<String, Arc<SandboxStatus>>,
    create_container: SingleFlight<(String, String, u32), Arc<ContainerStatus>>,
    start_container: SingleFlight<String, Arc<ContainerStatus>>,
}

impl WasmProvider {
    /// Opens the provider: its folder, its engine, and what an earlier life left in its records.
    ///
    /// Containers that ran then have ended with it (137), and sandboxes are not ready: their network is gone.
    /// `Unavailable` if another process has the folder open.
    pub async fn open(options: Options) -> Result<Self> {
        let control = options.control.clone();
        let opening = control.spawn_blocking(move || Shared::open(options));
        let (shared, records) = opening
            .await
            .map_err(|error| Error::internal(format!("cannot open the provider: {error}")))??;
        shared.restore(records).await;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What it has counted, for Prometheus: `coracle_wasm_*`.
    pub fn metrics(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.shared.engine.metrics().gather()
    }

    /// Ends all guests and waits until nothing of the provider runs any more. Its folder is then free for another.
    pub async fn shut_down(self) {
        let shared = self.shared.clone();
        drop(self);
        shared.spawner.ended().await;
    }
}

impl Drop for WasmProvider {
    fn drop(&mut self) {
        self.shared.spawner.end();
    }
}

impl Shared {
    fn open(mut options: Options) -> Result<(Self, Records)> {
        let at = |folder: &Path| {
            let folder = folder.display().to_string();
            move |error: io::Error| Error::internal(format!("cannot open {folder}: {error}"))
        };
        let root = options.root.clone();
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(at(&root))?;
        let lock = lock(&root)?;
        sweep(&root.join(MOUNTS)).map_err(at(&root))?;
        let (journal, records) = Journal::open(root.clone()).map_err(at(&root))?;
        let limits = &options.guests;
        let engine =
            Engine::new(limits.instances, limits.tick).map_err(|error| Error::internal(error.to_string()))?;
        let engine = Arc::new(engine);
        let (command, compile) = (options.compiler.clone(), options.compile.clone());
        let compiled = root.join("compiled");
        let compiler = Compiler::open(compiled.clone(), engine.compatibility(), command, compile)
            .map_err(at(&compiled))?;
        let spawner = Spawner::new(options.control.clone());
        let programs = Programs::new(engine.clone(), compiler, spawner.clone())
            .map_err(|error| Error::internal(format!("cannot link the host: {}", one_line(&error))))?;
        options.images.root.clone_from(&root);
        let images = ImageStore::open(options.images.clone(), programs.clone())?;
        let threads = |error| Error::internal(format!("cannot start threads: {error}"));
        let shared = Self {
            tables: Tables::new(),
            journal,
            logs: LogWriter::start().map_err(threads)?,
            guests: GuestRuntimes::start(options.guests.clone(), &options.network).map_err(threads)?,
            engine,
            programs,
            images,
            flights: Flights::default(),
            spawner,
            _lock: lock,
            options,
        };
        Ok((shared, records))
    }

    /// Shows what an earlier life left, and records what its end did to it.
    async fn restore(&self, records: Records) {
        self.keep_addresses(&records.sandboxes).await;
        let sandboxes = records.sandboxes.into_iter().map(Sandbox::dead).collect();
        let containers: Vec<_> = records.containers.into_iter().map(Container::dead).collect();
        for container in &containers {
            if let Err(error) = self.journal.put(&*container.status()).await {
                tracing::error!(container = container.id, %error, "cannot record the end of a container");
            }
        }
        self.tables.restore(sandboxes, containers);
    }

    /// Where single files that containers mount are gathered, by container.
    fn mounts_folder(&self) -> PathBuf {
        self.options.root.join(MOUNTS)
    }
}

const MOUNTS: &str = "mounts";

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(|error| Error::internal(format!("cannot open {}: {error}", path.display())))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("another process uses {}: {error}", root.display()))
    })?;
    Ok(file)
}

impl WasmProvider {
    /// Does a change to its end, whether or not the caller waits for that.
    async fn spawned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.shared.spawner.spawn(work).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(Error::new(ErrorKind::Unavailable, "the provider ends")),
            Err(error) => Err(Error::internal(format!("the provider failed: {error}"))),
        }
    }
}

/// Empties a folder whose content nobody needs any more.
fn sweep(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An id that nothing else ever has: 64 hexadecimal digits, as those of other runtimes.
fn new_id() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn no_sandbox(id: &str) -> Error {
    Error::not_found(format!("there is no sandbox {id}"))
}

fn not_ready(id: &str) -> Error {
    Error::invalid(format!("sandbox {id} was stopped: its pod needs a new one"))
}

fn no_container(id: &str) -> Error {
    Error::not_found(format!("there is no container {id}"))
}

fn record_error(id: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("cannot record {id}: {error}"))
}
