//! Pods from manifests on disk: a folder of them, or a single file (upstream: `pkg/kubelet/config/file.go`,
//! `file_linux.go`).
//!
//! The kernel tells of changes, and everything is read again then; a look at fixed times finds what it did not tell. A
//! manifest that cannot be read is told in the log and harms no other.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::manifest::ManifestError;
use super::static_pod::{MAX_MANIFEST_BYTES, ManifestOrigin, StaticPod, decode_static_pod};
use crate::pod::PodExt;
use crate::ports::{PodSource, SourceKind, SourceUpdate};

mod watch;

use watch::ManifestWatch;

/// How soon a path is looked at again that cannot be watched: it may not be there yet (`retryPeriod`).
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// The pods of a path on this node.
pub struct FileSource {
    path: PathBuf,
    node_name: String,
    period: Duration,
}

impl FileSource {
    /// Reads `path` (`staticPodPath`), a folder or a file that may not be there yet. It is read at least once in
    /// `period` (`fileCheckFrequency`).
    pub fn new(path: PathBuf, node_name: String, period: Duration) -> Self {
        Self { path, node_name, period }
    }
}

#[async_trait]
impl PodSource for FileSource {
    fn kind(&self) -> SourceKind {
        SourceKind::File
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        info!(path = %self.path.display(), "watching static pods");
        let mut manifests = Manifests::default();
        loop {
            // Made anew each time, because the folder may be another one by now; and before anything is read, so that
            // no change falls between the two.
            let (watch, period) = self.watch();
            let next_audit = Instant::now() + period;
            self.look(&mut manifests, Look::Audit, &updates).await;
            loop {
                tokio::select! {
                    () = sleep_until(next_audit) => break,
                    is_watched = changed(watch.as_ref()) => {
                        if !is_watched {
                            break;
                        }
                        self.look(&mut manifests, Look::Notice, &updates).await;
                    }
                    () = updates.closed() => return,
                }
            }
        }
    }
}

async fn changed(watch: Option<&ManifestWatch>) -> bool {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

impl FileSource {
    /// A watch on the path, if there can be one, and how long to wait for it before everything is read again.
    fn watch(&self) -> (Option<ManifestWatch>, Duration) {
        match ManifestWatch::new(&self.path) {
            Ok(watch) => (Some(watch), self.period),
            Err(error) if is_missing(&error) => (None, self.period.min(RETRY_PERIOD)),
            Err(error) => {
                let path = self.path.display();
                warn!("static pod path {path} cannot be watched, pods change with delay: {error}");
                (None, self.period)
            }
        }
    }

    async fn look(&self, manifests: &mut Manifests, look: Look, updates: &mpsc::Sender<SourceUpdate>) {
        match manifests.read(&self.path, look, &self.node_name).await {
            // A closed channel is noticed by the caller.
            Ok(pods) => _ = updates.send(SourceUpdate::Set(pods)).await,
            Err(error) => manifests.tell(&self.path, &FileError::from(error).to_string()),
        }
    }
}

/// Why files are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is time.
    Audit,
    /// Something changed. Who changes a file may not be done yet, so one that cannot be read stays what it was.
    Notice,
}

/// Why a file gives no pod.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a file; folders in the folder of manifests are not read")]
    NotAFile,
    #[error("is larger than {} MiB", MAX_MANIFEST_BYTES >> 20)]
    TooLarge,
    #[error("is no usable pod: {0}")]
    Manifest(#[from] ManifestError),
}

/// What the files said when they were last read.
#[derive(Default)]
struct Manifests {
    pods: BTreeMap<PathBuf, Arc<Pod>>,
    /// What the log has about a path: it is told once, not at every look.
    told: HashMap<PathBuf, String>,
}

impl Manifests {
    /// The pods of a path now. Fails if it cannot be known which files there are.
    async fn read(&mut self, path: &Path, look: Look, node_name: &str) -> io::Result<Vec<Arc<Pod>>> {
        let Some(files) = manifest_files(path).await? else {
            self.pods.clear();
            self.told.retain(|told, _| told == path);
            self.tell(path, "does not exist; there are no static pods");
            return Ok(Vec::new());
        };
        self.told.retain(|told, _| files.contains(told));
        let mut before = std::mem::take(&mut self.pods);
        for file in files {
            match read_file(&file, node_name).await {
                Ok(StaticPod { pod, warnings }) => {
                    self.tell(&file, &warnings.join("; "));
                    self.pods.insert(file, pod);
                }
                Err(error) => {
                    self.tell(&file, &error.to_string());
                    if look == Look::Notice
                        && let Some(pod) = before.remove(&file)
                    {
                        self.pods.insert(file, pod);
                    }
                }
            }
        }
        Ok(self.by_name())
    }

    /// Of several files with a pod of the same name, the last one counts.
    fn by_name(&mut self) -> Vec<Arc<Pod>> {
        let mut by_name: BTreeMap<String, (&PathBuf, &Arc<Pod>)> = BTreeMap::new();
        let mut hidden = Vec::new();
        for (path, pod) in &self.pods {
            if let Some((other, _)) = by_name.insert(pod.display_name(), (path, pod)) {
                let message = format!("is not used: {} has a pod of the same name", path.display());
                hidden.push((other.clone(), message));
            }
        }
        let pods = by_name.into_values().map(|(_, pod)| pod.clone()).collect();
        for (path, message) in hidden {
            self.tell(&path, &message);
        }
        pods
    }

    /// Tells something about a path, unless it was told before. Nothing to tell is news too, next time.
    fn tell(&mut self, path: &Path, message: &str) {
        let before = self.told.insert(path.to_owned(), message.to_owned());
        if !message.is_empty() && before.as_deref() != Some(message) {
            warn!("static pod path {} {message}", path.display());
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files of a path, in order: itself or, of a folder, all but those that begin with a dot. None if it is not there.
async fn manifest_files(path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let metadata = match tokio::fs::metadata(path).await {
        Err(error) if is_missing(&error) => return Ok(None),
        metadata => metadata?,
    };
    if !metadata.is_dir() {
        return Ok(Some(vec![path.to_owned()]));
    }
    let mut entries = tokio::fs::read_dir(path).await?;
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(Some(files))
}

async fn read_file(path: &Path, node_name: &str) -> Result<StaticPod, FileError> {
    // Asked before it is opened: opening a pipe would wait for its other end.
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut manifest = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut manifest).await?;
    if manifest.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(FileError::TooLarge);
    }
    Ok(decode_static_pod(&manifest, ManifestOrigin::File(path), node_name)?)
}

#[cfg(test)]
mod tests;
