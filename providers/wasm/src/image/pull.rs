//! From a reference to an image that is present.

use std::io::Write;

use coracle_provider::RegistryAuth;

use super::artifact::{ImageConfig, WasmBlob};
use super::digest::Digest;
use super::error::ImageError;
use super::flight::Progress;
use super::format::{Content, wasm_layer};
use super::manifest::{Descriptor, Document, Manifest, ManifestError, select_wasm};
use super::reference::{Reference, Version};
use super::registry::{MAX_MANIFEST_BYTES, RegistryError, Session};
use super::store::{FileKey, Lease, Named, binary_of};
use super::{ImageStore, Source, rootfs, wasm_file};

/// An image of which all files are present and held.
pub(super) struct Pulled {
    pub(super) manifest: Digest,
    /// The binary, if it had to be taken out of archives.
    pub(super) unpacked: Option<Digest>,
    /// All that leads to it.
    pub(super) names: Vec<String>,
}

/// A manifest that was chosen for this node.
struct Resolved {
    manifest: Box<Manifest>,
    bytes: Vec<u8>,
    digest: Digest,
    names: Vec<String>,
}

impl ImageStore {
    /// Fetches, prepares and keeps what `source` names.
    pub(super) async fn pull_from(
        &self,
        source: &Source,
        auth: Option<&RegistryAuth>,
        progress: &Progress,
    ) -> Result<Named, ImageError> {
        let lease = Lease::default();
        let pulled = match source {
            Source::Registry(reference) => self.pull_reference(reference, auth, progress, &lease).await,
            Source::File(path) => self.read_local_file(path, progress, &lease).await,
        };
        let store = self.store.clone();
        match pulled {
            Ok(Pulled { manifest, unpacked, names }) => {
                self.blocking(move || store.commit(&lease, &manifest, unpacked.as_ref(), &names)).await
            }
            Err(error) => {
                let release = move || {
                    store.release(&lease);
                    Ok(())
                };
                self.blocking(release).await?;
                Err(error)
            }
        }
    }

    async fn pull_reference(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        progress: &Progress,
        lease: &Lease,
    ) -> Result<Pulled, ImageError> {
        let mut session = self.registries.session(reference, auth).await?;
        let Resolved { manifest, bytes, digest, names } = resolve(&mut session, reference).await?;
        manifest.content()?;
        self.check_sizes(&manifest)?;

        self.keep_bytes(lease, &digest, bytes).await?;
        let mut missing = self.hold_blobs(lease, &manifest).await?;
        progress.resolved(missing.iter().map(|blob| blob.size).sum());
        // The configuration first: it says whether the rest is worth fetching.
        missing.sort_by_key(|blob| blob.digest != manifest.config.digest);
        let (config, layers) = match missing.split_first() {
            Some((first, layers)) if first.digest == manifest.config.digest => (Some(first), layers),
            _ => (None, missing.as_slice()),
        };
        if let Some(config) = config {
            self.fetch(&mut session, config, progress).await?;
        }
        let config = self.read_config(&manifest).await?;
        if let Content::Layers(layers) = manifest.content()? {
            wasm_layer(&layers, &config)?;
        }
        for layer in layers {
            self.fetch(&mut session, layer, progress).await?;
        }

        progress.preparing();
        let unpacked = match manifest.content()? {
            Content::Layers(_) => None,
            Content::Archives(layers) => self.unpack(lease, &digest, layers, &config).await?,
        };
        if let Some(binary) = binary_of(&manifest, &config, unpacked.as_ref())? {
            self.prepare_binary(binary).await?;
        }
        Ok(Pulled { manifest: digest, unpacked, names })
    }

    /// Refuses, before anything is fetched, what is too large.
    fn check_sizes(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let check = |what, size, limit| match size > limit {
            true => Err(ImageError::TooLarge { what, size, limit }),
            false => Ok(()),
        };
        check("a configuration", manifest.config.size, MAX_MANIFEST_BYTES)?;
        for layer in &manifest.layers {
            check("a layer", layer.size, self.options.max_layer_bytes)?;
        }
        // No overflow: there is a limit on the number of layers too.
        let total = manifest.layers.iter().map(|layer| layer.size).sum();
        check("layers", total, self.options.max_image_bytes)
    }

    /// Makes all blobs stay; answers those that are not there, each once.
    async fn hold_blobs(&self, lease: &Lease, manifest: &Manifest) -> Result<Vec<Descriptor>, ImageError> {
        let (store, lease) = (self.store.clone(), lease.clone());
        let blobs: Vec<Descriptor> = manifest.blobs().cloned().collect();
        self.blocking(move || {
            let mut missing: Vec<Descriptor> = Vec::new();
            for blob in blobs {
                let is_present = store.hold(&lease, &FileKey::blob(&blob.digest), blob.size);
                if !is_present && !missing.iter().any(|other| other.digest == blob.digest) {
                    missing.push(blob);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Keeps bytes that are in memory, and have been checked, as a blob.
    pub(super) async fn keep_bytes(
        &self,
        lease: &Lease,
        digest: &Digest,
        bytes: Vec<u8>,
    ) -> Result<(), ImageError> {
        let (store, lease, key) = (self.store.clone(), lease.clone(), FileKey::blob(digest));
        self.blocking(move || {
            if !store.hold(&lease, &key, bytes.len() as u64) {
                let mut draft = store.draft()?;
                draft.write_all(&bytes)?;
                store.keep(&key, draft.finish()?)?;
            }
            Ok(())
        })
        .await
    }

    async fn read_config(&self, manifest: &Manifest) -> Result<ImageConfig, ImageError> {
        let path = self.store.path(&FileKey::blob(&manifest.config.digest));
        let bytes = self.blocking(move || Ok(std::fs::read(path)?)).await?;
        Ok(manifest.image_config(&bytes)?)
    }

    /// Takes the binary that the entry point, if there is one, names out of the layers. An earlier pull may have done so.
    async fn unpack(
        &self,
        lease: &Lease,
        manifest: &Digest,
        layers: &[Descriptor],
        config: &ImageConfig,
    ) -> Result<Option<Digest>, ImageError> {
        let (store, lease) = (self.store.clone(), lease.clone());
        let known = store.by_digest(manifest).and_then(|named| named.image.unpacked());
        let Some(entry_files) = config.entry_files() else { return Ok(None) };
        let layers: Vec<_> = layers.iter().map(|layer| store.path(&FileKey::blob(&layer.digest))).collect();
        let (max_binary, max_unpacked) = (self.options.max_layer_bytes, self.options.max_image_bytes);
        self.blocking(move || {
            if let Some((unpacked, size)) = known
                && store.hold(&lease, &FileKey::unpacked(&unpacked), size)
            {
                return Ok(Some(unpacked));
            }
            let location = rootfs::locate(&layers, &entry_files, max_unpacked)?;
            Ok(Some(store.unpack(&lease, &layers, location, max_binary)?.digest))
        })
        .await
    }

    /// Looks at a binary that is held, and has it compiled.
    pub(super) async fn prepare_binary(&self, key: FileKey) -> Result<WasmBlob, ImageError> {
        let path = self.store.path(&key);
        let wasm = self
            .blocking(move || {
                let kind = wasm_file::inspect(&path)?;
                let size = std::fs::metadata(&path)?.len();
                Ok(WasmBlob { digest: key.digest.to_string(), path, size, kind })
            })
            .await?;
        self.prepare.prepare(&wasm).await.map_err(ImageError::Prepare)?;
        Ok(wasm)
    }
}

/// Finds the manifest for this node: through an index, if the reference leads to one.
async fn resolve(session: &mut Session, reference: &Reference) -> Result<Resolved, ImageError> {
    let named = session.manifest(reference.version()).await?;
    let mut names = vec![reference.to_string(), reference.with_digest(&named.digest).to_string()];
    let chosen = match Document::parse(&named.bytes, named.content_type.as_deref())? {
        Document::Manifest(manifest) => (manifest, named),
        Document::Index(entries) => {
            let entry = select_wasm(&entries)?;
            let version = Version::Digest(entry.digest.clone());
            let raw = session.manifest(&version).await.map_err(|error| match error {
                RegistryError::NotFound => RegistryError::BlobNotFound(entry.digest.clone()),
                other => other,
            })?;
            names.push(reference.with_digest(&raw.digest).to_string());
            match Document::parse(&raw.bytes, raw.content_type.as_deref())? {
                Document::Manifest(manifest) => (manifest, raw),
                Document::Index(_) => return Err(ManifestError::NestedIndex.into()),
            }
        }
    };
    let (manifest, raw) = chosen;
    Ok(Resolved { manifest, bytes: raw.bytes, digest: raw.digest, names })
}
