//! Why TLS cannot be set up.

use std::io;
use std::path::PathBuf;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in the files is not what is needed.
    #[error("cannot use {paths:?}: {reason}")]
    Content {
        /// The files.
        paths: Vec<PathBuf>,
        /// What is wrong.
        reason: String,
    },
    /// One of a pair is missing.
    #[error(
        "error reading {missing:?}, certificate and key must be supplied as a pair; remove {present:?} to have a new pair generated"
    )]
    HalfAPair {
        /// The file that is not there.
        missing: PathBuf,
        /// The file that is.
        present: PathBuf,
    },
    /// The self-signed certificate could not be made.
    #[error("unable to generate self signed cert: {0}")]
    Generate(String),
    /// Nothing of what was chosen can be spoken.
    #[error("none of what was chosen is supported, {what}: {chosen}; choose others, or leave it unset")]
    Choice {
        /// The field of the configuration.
        what: &'static str,
        /// What was chosen.
        chosen: String,
    },
    /// The TLS library refuses the settings.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] rustls::Error),
}
