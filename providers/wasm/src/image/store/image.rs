//! One image of the store, read from its files.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use super::layout::{FileKey, Layout};
use crate::image::artifact::{Artifact, ImageConfig, WasmBlob};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::format::{Content, FormatError, wasm_layer};
use crate::image::manifest::{Descriptor, Document, Manifest, ManifestError};
use crate::image::wasm_file;

/// The annotation in `index.json` that says which unpacked binary belongs to an image of archives.
const UNPACKED_ANNOTATION: &str = "dev.coracle.wasm.unpacked";
/// The annotation that says the name (OCI image specification, "Pre-Defined Annotation Keys").
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// An image and the files that it is made of.
#[derive(Debug)]
pub(in crate::image) struct StoredImage {
    /// What it runs by itself; none for a container image without an entry point, of which containers name a file.
    pub(in crate::image) artifact: Option<Arc<Artifact>>,
    pub(in crate::image) config: ImageConfig,
    is_container_image: bool,
    /// Annotations of the manifest.
    pub(in crate::image) annotations: BTreeMap<String, String>,
    /// Every file that the image needs, with its size.
    pub(in crate::image) files: Vec<(FileKey, u64)>,
    /// The manifest, as `index.json` lists it.
    descriptor: Descriptor,
}

impl StoredImage {
    /// Reads the image with that manifest; the binary of an image of archives has been unpacked to `unpacked`. All
    /// files must be there.
    pub(super) fn load(
        layout: &Layout,
        manifest_digest: &Digest,
        unpacked: Option<&Digest>,
    ) -> Result<Self, ImageError> {
        let bytes = read_checked(layout, manifest_digest)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, None)? else {
            return Err(ManifestError::Malformed("it is an index".to_owned()).into());
        };
        let config = manifest.image_config(&read_checked(layout, &manifest.config.digest)?)?;
        let wasm = binary_of(&manifest, &config, unpacked)?;
        let files = files(layout, manifest_digest, &manifest, wasm.as_ref())?;
        let is_container_image = matches!(manifest.content()?, Content::Archives(_));
        let artifact = |wasm| {
            Arc::new(Artifact {
                manifest_digest: manifest_digest.to_string(),
                wasm,
                config: config.clone(),
                is_named: is_container_image,
            })
        };
        Ok(Self {
            artifact: wasm.map(|wasm| blob(layout, &wasm)).transpose()?.map(artifact),
            config,
            is_container_image,
            annotations: manifest.annotations.clone().unwrap_or_default(),
            files,
            descriptor: describe(&manifest, manifest_digest, bytes.len() as u64, unpacked),
        })
    }

    /// The digest of the manifest.
    pub(in crate::image) fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }

    /// Whether the command line of a container names a file of it.
    pub(in crate::image) fn is_container_image(&self) -> bool {
        self.is_container_image
    }

    /// The binary that was unpacked from archives, and its size.
    pub(in crate::image) fn unpacked(&self) -> Option<(Digest, u64)> {
        let found = self.files.iter().find(|(key, _)| key.is_unpacked());
        found.map(|(key, size)| (key.digest.clone(), *size))
    }

    /// The entry of `index.json` that makes `name` lead here.
    pub(super) fn index_entry(&self, name: &str) -> Descriptor {
        let mut entry = self.descriptor.clone();
        entry.annotations.get_or_insert_default().insert(NAME_ANNOTATION.to_owned(), name.to_owned());
        entry
    }
}

fn blob(layout: &Layout, wasm: &FileKey) -> Result<WasmBlob, ImageError> {
    let path = layout.path(wasm);
    Ok(WasmBlob {
        digest: wasm.digest.to_string(),
        size: fs::metadata(&path)?.len(),
        kind: wasm_file::peek(&path)?,
        path,
    })
}

/// The file that holds the binary of an image, if it says which one; from archives it has been unpacked to `unpacked`.
pub(in crate::image) fn binary_of(
    manifest: &Manifest,
    config: &ImageConfig,
    unpacked: Option<&Digest>,
) -> Result<Option<FileKey>, ImageError> {
    match (manifest.content()?, unpacked) {
        (Content::Layers(layers), _) => Ok(Some(FileKey::blob(&wasm_layer(&layers, config)?.digest))),
        (Content::Archives(_), Some(unpacked)) => Ok(Some(FileKey::unpacked(unpacked))),
        (Content::Archives(_), None) if config.entry_files().is_none() => Ok(None),
        (Content::Archives(_), None) => Err(FormatError::NoEntryPoint.into()),
    }
}

/// What an entry of `index.json` says beyond the manifest: the name, and the unpacked binary.
pub(super) fn read_index_entry(entry: &Descriptor) -> Option<(&str, Option<Digest>)> {
    let annotations = entry.annotations.as_ref()?;
    let name = annotations.get(NAME_ANNOTATION)?;
    let unpacked = annotations.get(UNPACKED_ANNOTATION).cloned();
    Some((name, unpacked.and_then(|digest| Digest::try_from(digest).ok())))
}

fn describe(manifest: &Manifest, digest: &Digest, size: u64, unpacked: Option<&Digest>) -> Descriptor {
    let annotations = unpacked.map(|digest| (UNPACKED_ANNOTATION.to_owned(), digest.to_string()));
    Descriptor {
        media_type: manifest.media_type.clone(),
        digest: digest.clone(),
        size,
        platform: None,
        artifact_type: None,
        annotations: annotations.map(|annotation| BTreeMap::from([annotation])),
    }
}

/// All files of an image, each once, each checked to be as long as it was.
fn files(
    layout: &Layout,
    manifest_digest: &Digest,
    manifest: &Manifest,
    wasm: Option<&FileKey>,
) -> Result<Vec<(FileKey, u64)>, ImageError> {
    let mut files: Vec<(FileKey, u64)> = Vec::new();
    let declared = manifest.blobs().map(|blob| (FileKey::blob(&blob.digest), Some(blob.size)));
    let own =
        [Some(FileKey::blob(manifest_digest)), wasm.cloned()].into_iter().flatten().map(|key| (key, None));
    for (key, declared) in declared.chain(own) {
        if files.iter().any(|(known, _)| *known == key) {
            continue;
        }
        let size = layout.size(&key).filter(|size| declared.is_none_or(|declared| declared == *size));
        let size = size.ok_or_else(|| ImageError::WrongBlob(key.digest.clone()))?;
        files.push((key, size));
    }
    Ok(files)
}

/// Reads a small blob that this process is going to believe.
fn read_checked(layout: &Layout, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let bytes = fs::read(layout.path(&FileKey::blob(digest)))?;
    match Digest::of(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(ImageError::WrongBlob(digest.clone())),
    }
}
