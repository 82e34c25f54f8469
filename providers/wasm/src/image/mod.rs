//! Images: references, pulls, and the store on disk.
//!
//! An image reference becomes an [`Artifact`]: one Wasm binary and how to run it. All ways in which Wasm is put into
//! registries are understood (see `format`); of a container image only the binary that its entry point names is taken,
//! its other files are not there for the guest. A binary is prepared (compiled) once, as a part of its pull.
//!
//! Whoever may name a reference decides what is fetched from where, so everything that is read has a limit, and every
//! byte that is used has been compared with the digest that names it. A manifest is fetched anew with every pull and
//! with the pull's own credentials; blobs that are present are not fetched again, so that (as with containerd) whoever
//! knows the digest of a private layer that is present can have it run.

mod artifact;
mod digest;
mod download;
mod error;
mod flight;
mod format;
mod local;
mod manifest;
mod media_type;
mod program;
mod pull;
mod reference;
mod registry;
mod rootfs;
mod store;
mod wasm_file;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{
    ArtifactKind, Error, ErrorKind, FsUsage, Image, ImageSpec, PullProgress, PullRequest, Result,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use artifact::{Artifact, ImageConfig, WasmBlob, WasmKind};
use digest::{Digest, is_hex64};
use error::ImageError;
use flight::Flights;
use local::LocalFiles;
use program::Program;
use reference::{Reference, ReferenceError};
use registry::Registries;
use store::{Named, Store};

/// What an image store is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The provider's folder. The store is the folder `images` in it.
    pub root: PathBuf,
    /// Whether references that begin with `./` or `/` are read as files of this machine. On a node this would let
    /// whoever makes pods read the node's files.
    pub allow_local_files: bool,
    /// Registries (`host` or `host:port`) that are spoken to without TLS. Those on this machine always are.
    pub plain_http: Vec<String>,
    /// A folder that says how registries are reached, as containerd's `certs.d`: mirrors, authorities, plain HTTP.
    pub hosts_dir: Option<PathBuf>,
    /// The longest layer, and the longest binary in one. Keeps one pull from filling disk and memory.
    pub max_layer_bytes: u64,
    /// The most that the layers of one image may have together, as they are and unpacked. Keeps one pull from filling
    /// the disk with many layers, and the processor with a small one that unpacks to something huge.
    pub max_image_bytes: u64,
    /// How long a registry may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long a registry may send nothing.
    pub stall_timeout: Duration,
}

impl Options {
    /// The defaults, with the store below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            allow_local_files: false,
            plain_http: Vec::new(),
            hosts_dir: None,
            max_layer_bytes: 256 << 20,
            max_image_bytes: 1 << 30,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// Makes binaries ready to run, and knows what it has made. The engine does this.
#[async_trait]
pub trait Prepare: Send + Sync {
    /// Makes `wasm` ready to run. Called with every pull: what is ready already must be cheap. An error that is not
    /// retryable says that the binary can't be used, and why, in one line.
    async fn prepare(&self, wasm: &WasmBlob) -> Result<()>;

    /// How much space was used for the binary with that digest. Answers from memory.
    fn prepared_bytes(&self, digest: &str) -> u64;

    /// No image has a file with that digest any more: what was made from it can go. Called on a blocking thread, for
    /// files that are no binaries too. Must not call the store.
    fn forget(&self, digest: &str);

    /// The images that there are have files with these digests: what was made from others can go, because a process
    /// ended before it could forget it. Called once, on a blocking thread, when the store is opened.
    fn retain(&self, digests: &HashSet<String>);
}

/// The images of this node. Questions are answered from memory.
///
/// A pull runs as a task of the runtime that it was called on, which must not be one whose threads have a pod's
/// network: dropping the call ends the waiting, not the pull. Dropping the store ends nothing; its folder is free for
/// another one when the last pull has ended.
pub struct ImageStore {
    options: Options,
    registries: Registries,
    prepare: Arc<dyn Prepare>,
    store: Arc<Store>,
    flights: Flights,
    local_files: LocalFiles,
    /// What `command`s of containers have named.
    programs: Mutex<Vec<Program>>,
}

impl ImageStore {
    /// Opens the store and removes what interrupted pulls have left. Blocks. Fails if another process has it open.
    pub fn open(options: Options, prepare: Arc<dyn Prepare>) -> Result<Arc<Self>> {
        let root = options.root.join("images");
        let store = Store::open(root.clone(), prepare.clone()).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::ResourceBusy => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, format!("can't open the image store {}: {error}", root.display()))
        })?;
        let registries = Registries::new(
            options.plain_http.clone(),
            options.hosts_dir.clone(),
            options.connect_timeout,
            options.stall_timeout,
        );
        let (flights, local_files) = (Flights::default(), LocalFiles::default());
        let (store, programs) = (Arc::new(store), Mutex::default());
        Ok(Arc::new(Self { options, registries, prepare, store, flights, local_files, programs }))
    }

    /// Fetches an image and prepares it. Pulls of the same reference with the same credentials that run at the same
    /// time are one.
    pub async fn pull(
        self: &Arc<Self>,
        request: PullRequest,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Image> {
        let source = self.source(&request.image.image)?;
        let store = self.clone();
        let auth = request.auth.clone();
        self.flights
            .join(&source.name(), request.auth, progress, |progress| async move {
                let pulled = store.pull_from(&source, auth.as_ref(), &progress).await;
                pulled
                    .map(|named| store.describe(&named))
                    .map_err(|error| error.for_image(&request.image.image))
            })
            .await
    }

    /// The image, if it is present. `image` is a reference or an [`Image::id`]. A file of this machine counts as
    /// present only as long as it has not changed since it was read.
    pub async fn status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let Some(named) = self.find(&image.image)? else { return Ok(None) };
        if reference::is_local_file(&image.image) && !self.local_files.is_unchanged(&image.image).await {
            return Ok(None);
        }
        Ok(Some(self.describe(&named)))
    }

    /// All images.
    pub fn list(&self) -> Vec<Image> {
        self.store.list().iter().map(|named| self.describe(named)).collect()
    }

    /// Removes an image and everything that leads to it, whichever of its names is given. What is gone is removed.
    pub async fn remove(&self, image: &ImageSpec) -> Result<()> {
        let Some(named) = self.find(&image.image)? else { return Ok(()) };
        let (store, digest) = (self.store.clone(), named.image.digest().clone());
        let removed = self.blocking(move || Ok(store.remove(&digest)?)).await;
        let removed = match removed {
            Ok(()) => self.forget_programs(named.image.digest()).await,
            failed => failed,
        };
        removed.map_err(|error| error.for_image(&image.image))
    }

    /// How much space the images take, with what was prepared from them, and how much there is.
    pub async fn fs_info(&self) -> Result<FsUsage> {
        let store = self.store.clone();
        let look =
            move || Ok((store.usage(), rustix::fs::statvfs(store.root()).map_err(std::io::Error::from)?));
        let (usage, file_system) = self.blocking(look).await.map_err(|error| error.for_image("*"))?;
        let images = self.store.list();
        let programs = self.programs.lock();
        let artifacts = images.iter().filter_map(|named| named.image.artifact.as_ref());
        let artifacts = artifacts.chain(programs.iter().map(|program| &program.artifact));
        let mut binaries: Vec<&str> = artifacts.map(|artifact| artifact.wasm.digest.as_str()).collect();
        binaries.sort_unstable();
        binaries.dedup();
        let prepared: u64 = binaries.into_iter().map(|digest| self.prepare.prepared_bytes(digest)).sum();
        Ok(FsUsage {
            mountpoint: self.store.root().display().to_string(),
            used_bytes: usage.bytes + prepared,
            inodes_used: usage.files,
            capacity_bytes: file_system.f_blocks.saturating_mul(file_system.f_frsize),
            available_bytes: file_system.f_bavail.saturating_mul(file_system.f_frsize),
        })
    }

    fn present(&self, image: &str) -> Result<Named> {
        let missing = || Error::not_found(format!("image {image:?} is not present on this node"));
        self.find(image)?.ok_or_else(missing)
    }

    fn find(&self, image: &str) -> Result<Option<Named>> {
        let id = if is_hex64(image) { format!("sha256:{image}") } else { image.to_owned() };
        match Digest::try_from(id) {
            Ok(digest) => Ok(self.store.by_digest(&digest)),
            Err(_) => Ok(self.store.by_name(&self.source(image)?.name())),
        }
    }

    fn source(&self, image: &str) -> Result<Source> {
        let source = if reference::is_local_file(image) {
            match self.options.allow_local_files {
                true => local::absolute(image).map(Source::File),
                false => Err(ReferenceError::LocalFile(image.to_owned())),
            }
        } else {
            Reference::parse(image).map(Source::Registry)
        };
        source.map_err(|error| ImageError::from(error).for_image(image))
    }

    fn describe(&self, named: &Named) -> Image {
        let files: u64 = named.image.files.iter().map(|(_, size)| size).sum();
        // As container runtimes tell it: a number or a name, and not the group.
        let user = named.image.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok();
        let prepared = |artifact: &Arc<Artifact>| self.prepare.prepared_bytes(&artifact.wasm.digest);
        let (repo_digests, repo_tags) = named.names.iter().cloned().partition(|name| is_digest_name(name));
        Image {
            id: named.image.digest().to_string(),
            repo_tags,
            repo_digests,
            size_bytes: files + named.image.artifact.as_ref().map_or(0, prepared),
            kind: ArtifactKind::Wasm,
            uid,
            username: uid.map_or_else(|| user.to_owned(), |_| String::new()),
            annotations: named.image.annotations.clone(),
            pinned: false,
        }
    }

    /// Runs what waits for a disk where waiting is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        tokio::task::spawn_blocking(work).await?
    }
}

/// Where an image comes from.
#[derive(Clone, Debug)]
enum Source {
    Registry(Reference),
    /// An absolute path.
    File(PathBuf),
}

impl Source {
    /// The full name: the key of everything that is kept about it.
    fn name(&self) -> String {
        match self {
            Self::Registry(reference) => reference.to_string(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

fn is_digest_name(name: &str) -> bool {
    !name.starts_with('/') && name.contains('@')
}
