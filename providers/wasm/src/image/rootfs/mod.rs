//! Finds one file in the layers of a container image, without unpacking the image.
//!
//! The layers come from strangers. They are read as streams, into a tree in memory that knows names and positions only;
//! no path of an archive ever becomes a path of this machine. [`locate`] merges the layers as an overlay file system
//! would, [`copy`] then reads the one file that is wanted.

mod archive;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tree::Tree;

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// In which layer, by number.
    layer: usize,
    /// At which byte of the layer, once unpacked.
    position: u64,
    pub(super) size: u64,
}

/// Why a file can't be had from an image's layers. Continues "image X …".
#[derive(Debug, thiserror::Error)]
pub(super) enum RootfsError {
    #[error("has a damaged layer: {0}")]
    Damaged(String),
    #[error("unpacks to {0} bytes or more, which is the limit")]
    TooLarge(u64),
    #[error("has more files than are looked through for its entry point")]
    TooManyFiles,
    #[error("has a layer with {0}, and is refused")]
    Hostile(&'static str),
    #[error("has a layer with {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("has no file {0:?}, which its entry point names")]
    NotFound(String),
    #[error("could not be read from disk: {0}")]
    Io(#[source] io::Error),
}

impl RootfsError {
    fn damaged(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Finds the first of `paths` that is a file in the merged `layers`, the lowest layer first. Gives up when `max_bytes`
/// have been unpacked: a small layer may unpack to anything, which would keep the node busy.
pub(super) fn locate(layers: &[PathBuf], paths: &[String], max_bytes: u64) -> Result<Location, RootfsError> {
    let mut tree = Tree::default();
    let mut budget = max_bytes;
    for (number, path) in layers.iter().enumerate() {
        let mut layer = open(path)?.take(budget);
        let read = archive::for_each(&mut layer, |entry| tree.apply(number, entry));
        budget = layer.limit();
        if budget == 0 {
            return Err(RootfsError::TooLarge(max_bytes));
        }
        read?;
    }
    for path in paths {
        if let Some(location) = tree.file(path)? {
            return Ok(location);
        }
    }
    Err(RootfsError::NotFound(paths.first().cloned().unwrap_or_default()))
}

/// Writes the bytes of the file at `location` to `sink`.
pub(super) fn copy(layers: &[PathBuf], location: Location, sink: &mut impl Write) -> Result<(), RootfsError> {
    let mut layer = open(&layers[location.layer])?;
    io::copy(&mut (&mut layer).take(location.position), &mut io::sink()).map_err(RootfsError::damaged)?;
    match io::copy(&mut layer.take(location.size), sink).map_err(RootfsError::Io)? {
        copied if copied == location.size => Ok(()),
        _ => Err(RootfsError::damaged("a file ends early")),
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, RootfsError> {
    unpack::unpack(File::open(path).map_err(RootfsError::Io)?).map_err(RootfsError::damaged)
}
