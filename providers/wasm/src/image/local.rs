//! Files of this machine instead of images, for `coracle run`.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::json;

use super::ImageStore;
use super::artifact::WasmKind;
use super::digest::Digest;
use super::error::ImageError;
use super::flight::Progress;
use super::manifest::{Descriptor, Manifest};
use super::media_type::{OCI_MANIFEST, WASM_CONFIG, WASM_LAYER};
use super::pull::Pulled;
use super::reference::ReferenceError;
use super::store::{FileKey, Lease};
use super::wasm_file;

/// How the files looked that were read, by their absolute path.
#[derive(Default)]
pub(super) struct LocalFiles(Mutex<HashMap<PathBuf, Stamp>>);

/// What changes when somebody writes to a file or puts another one into its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl LocalFiles {
    /// Whether the file that `image` names still is the one that was read.
    pub(super) async fn is_unchanged(&self, image: &str) -> bool {
        let Ok(path) = absolute(image) else { return false };
        let Some(known) = self.0.lock().get(&path).copied() else { return false };
        tokio::fs::metadata(&path).await.is_ok_and(|metadata| Stamp::of(&metadata) == known)
    }
}

/// The path that `image` names, without links resolved.
pub(super) fn absolute(image: &str) -> Result<PathBuf, ReferenceError> {
    std::path::absolute(image).map_err(|_| ReferenceError::Malformed(image.to_owned()))
}

impl ImageStore {
    /// Makes a Wasm artifact of a file, the same one for the same content.
    pub(super) async fn read_local_file(
        &self,
        path: &Path,
        progress: &Progress,
        lease: &Lease,
    ) -> Result<Pulled, ImageError> {
        let (stamp, bytes) = {
            let (path, limit) = (path.to_owned(), self.options.max_layer_bytes);
            self.blocking(move || read(&path, limit)).await?
        };
        progress.resolved(bytes.len() as u64);
        progress.fetched(bytes.len());
        progress.preparing();

        let layer = describe(WASM_LAYER, &bytes);
        let kind = wasm_file::kind_of(&bytes)?;
        self.keep_bytes(lease, &layer.digest, bytes).await?;
        self.prepare_binary(FileKey::blob(&layer.digest)).await?;

        let (manifest, config) = wrap(layer, kind)?;
        self.keep_bytes(lease, &manifest.config.digest, config).await?;
        let manifest = serde_json::to_vec(&manifest).map_err(io::Error::from)?;
        let digest = Digest::of(&manifest);
        self.keep_bytes(lease, &digest, manifest).await?;
        self.local_files.0.lock().insert(path.to_owned(), stamp);
        Ok(Pulled { manifest: digest, unpacked: None, names: vec![path.display().to_string()] })
    }
}

fn read(path: &Path, limit: u64) -> Result<(Stamp, Vec<u8>), ImageError> {
    // Asked before it is opened: that waits for ever if it is a pipe.
    if !fs::metadata(path).map_err(ImageError::LocalFile)?.is_file() {
        return Err(ImageError::LocalFile(io::Error::other("it is no file")));
    }
    let file = File::open(path).map_err(ImageError::LocalFile)?;
    let metadata = file.metadata().map_err(ImageError::LocalFile)?;
    if metadata.len() > limit {
        return Err(ImageError::TooLarge { what: "a binary", size: metadata.len(), limit });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(ImageError::LocalFile)?;
    Ok((Stamp::of(&metadata), bytes))
}

/// The manifest and the configuration of a Wasm artifact with that layer. There is no time in them.
fn wrap(layer: Descriptor, kind: WasmKind) -> Result<(Manifest, Vec<u8>), ImageError> {
    let os = match kind {
        WasmKind::Module => "wasip1",
        WasmKind::Component => "wasip2",
    };
    let config = json!({"architecture": "wasm", "os": os, "layerDigests": [layer.digest]});
    let config = serde_json::to_vec(&config).map_err(io::Error::from)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: describe(WASM_CONFIG, &config),
        layers: vec![layer],
        annotations: None,
    };
    Ok((manifest, config))
}

fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        artifact_type: None,
        annotations: None,
    }
}
