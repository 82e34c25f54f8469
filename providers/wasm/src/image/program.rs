//! Programs of container images beside the one that the entry point names.
//!
//! In a container image `command` names a file, which need not be the entry point's: as in any container, that file is
//! run. It is taken out of the layers when the first container asks for it, and stays as long as the image; the next
//! process takes it out anew.

use std::sync::Arc;

use coracle_provider::Result;

use super::artifact::Artifact;
use super::digest::Digest;
use super::error::ImageError;
use super::format::{Content, FormatError, files_named};
use super::manifest::{Document, ManifestError};
use super::store::{FileKey, Lease, Named};
use super::{ImageStore, rootfs};

/// A program, and what keeps its file.
pub(super) struct Program {
    image: Digest,
    /// The paths at which it was looked for.
    files: Vec<String>,
    pub(super) artifact: Arc<Artifact>,
    pub(super) lease: Lease,
}

impl ImageStore {
    /// What to run for an image that is present, and a container's `command`, `args` and `workingDir`, each of which may
    /// be empty. `image` is a reference or an `Image::id`.
    pub async fn program(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
        working_dir: &str,
    ) -> Result<Arc<Artifact>> {
        let named = self.present(image)?;
        let (own, config) = (&named.image.artifact, &named.image.config);
        // In a Wasm artifact there are no files: the first word is a name for the only program there is.
        if let Some(own) = own.as_ref().filter(|_| !named.image.is_container_image()) {
            return Ok(own.clone());
        }
        let line = config.command_line(command, args);
        let Some(word) = line.first().filter(|word| !word.is_empty()) else {
            return Err(ImageError::from(FormatError::NoEntryPoint).for_image(image));
        };
        let files = match command {
            // The image's own word, in the image's own directory.
            [] if Some(word) == config.entrypoint.first().or(config.cmd.first()) => {
                files_named(word, &config.working_dir)
            }
            _ => files_named(word, if working_dir.is_empty() { &config.working_dir } else { working_dir }),
        };
        if let Some(own) = own.as_ref().filter(|_| config.entry_files().is_some_and(|entry| entry == files)) {
            return Ok(own.clone());
        }
        let known = {
            let programs = self.programs.lock();
            let is_it = |program: &&Program| program.image == *named.image.digest() && program.files == files;
            programs.iter().find(is_it).map(|program| program.artifact.clone())
        };
        match known {
            Some(artifact) => Ok(artifact),
            None => self.take_out(&named, files).await.map_err(|error| error.for_image(image)),
        }
    }

    async fn take_out(&self, named: &Named, files: Vec<String>) -> Result<Arc<Artifact>, ImageError> {
        let lease = Lease::default();
        let taken = self.prepare_program(named, &files, &lease).await;
        let artifact = match taken {
            Ok(artifact) => artifact,
            Err(error) => {
                self.release(lease).await?;
                return Err(error);
            }
        };
        let program =
            Program { image: named.image.digest().clone(), files, artifact: artifact.clone(), lease };
        // The image may have gone meanwhile; what is run stays mapped all the same.
        if self.store.by_digest(&program.image).is_some() {
            self.programs.lock().push(program);
        } else {
            self.release(program.lease).await?;
        }
        Ok(artifact)
    }

    async fn prepare_program(
        &self,
        named: &Named,
        files: &[String],
        lease: &Lease,
    ) -> Result<Arc<Artifact>, ImageError> {
        let (store, lease, files) = (self.store.clone(), lease.clone(), files.to_vec());
        let (max_binary, max_unpacked) = (self.options.max_layer_bytes, self.options.max_image_bytes);
        let manifest = self.store.path(&FileKey::blob(named.image.digest()));
        let key = self
            .blocking(move || {
                let Document::Manifest(manifest) = Document::parse(&std::fs::read(manifest)?, None)? else {
                    return Err(ManifestError::NestedIndex.into());
                };
                let layers = match manifest.content()? {
                    Content::Archives(layers) => layers,
                    Content::Layers(_) => &[],
                };
                let layers: Vec<_> =
                    layers.iter().map(|layer| store.path(&FileKey::blob(&layer.digest))).collect();
                let location = rootfs::locate(&layers, &files, max_unpacked)?;
                store.unpack(&lease, &layers, location, max_binary)
            })
            .await?;
        Ok(Arc::new(Artifact {
            manifest_digest: named.image.digest().to_string(),
            wasm: self.prepare_binary(key).await?,
            config: named.image.config.clone(),
            is_named: true,
        }))
    }

    /// Gives up the programs of an image that goes.
    pub(super) async fn forget_programs(&self, image: &Digest) -> Result<(), ImageError> {
        let gone: Vec<Program> = {
            let mut programs = self.programs.lock();
            let (gone, kept) = programs.drain(..).partition(|program| program.image == *image);
            *programs = kept;
            gone
        };
        for program in gone {
            self.release(program.lease).await?;
        }
        Ok(())
    }

    async fn release(&self, lease: Lease) -> Result<(), ImageError> {
        let store = self.store.clone();
        self.blocking(move || {
            store.release(&lease);
            Ok(())
        })
        .await
    }
}
