//! Why an image can't be had, and as what the pipeline hears of it.

use std::io;

use coracle_provider::{Error, ErrorKind};

use super::digest::Digest;
use super::format::FormatError;
use super::manifest::ManifestError;
use super::reference::ReferenceError;
use super::registry::RegistryError;
use super::rootfs::RootfsError;
use super::wasm_file::WasmFileError;

/// Everything that can go wrong between a reference and an artifact. Continues "image X …", except for a reference
/// that does not parse.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    WasmFile(#[from] WasmFileError),
    #[error("holds a blob that does not match {0}; it was damaged in its registry or on the way")]
    WrongBlob(Digest),
    #[error("has {what} of {size} bytes; at most {limit} are allowed")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("can't be read: {0}")]
    LocalFile(io::Error),
    #[error("could not be stored on disk: {0}")]
    Disk(#[from] io::Error),
    #[error("can't be prepared: {}", .0.message)]
    Prepare(Error),
    #[error("could not be pulled, a task of this provider failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// The error that the pipeline sees; `image` is what the user asked for.
    pub(super) fn for_image(self, image: &str) -> Error {
        let kind = self.kind();
        match self {
            // These name it themselves.
            Self::Reference(error) => Error::new(kind, error.to_string()),
            other => Error::new(kind, format!("image {image:?} {other}")),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_) => ErrorKind::InvalidImageName,
            Self::Registry(error) => error.kind(),
            Self::Disk(error)
            | Self::Rootfs(RootfsError::Io(error))
            | Self::WasmFile(WasmFileError::Io(error)) => disk_error_kind(error),
            // A compiler that could not work now may work later; one that said no will say it again.
            Self::Prepare(error) if error.kind.is_retryable() => error.kind,
            Self::Task(_) => ErrorKind::Internal,
            Self::Manifest(_)
            | Self::Format(_)
            | Self::Rootfs(_)
            | Self::WasmFile(_)
            | Self::WrongBlob(_)
            | Self::TooLarge { .. }
            | Self::LocalFile(_)
            | Self::Prepare(_) => ErrorKind::ImageUnusable,
        }
    }
}

fn disk_error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    }
}
