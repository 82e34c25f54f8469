//! What can be wrong with flags and configuration files.

use std::io;
use std::path::PathBuf;

/// Why the configuration cannot be used. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A configuration file, or the directory of drop-ins, cannot be read.
    #[error("failed to read the kubelet configuration {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file is not a valid document.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Document {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<u64>,
        /// What is wrong with it.
        message: String,
    },
    /// A flag's value cannot be read.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {message}")]
    Argument {
        /// The flag, without dashes.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that contradict each other or are out of range, each with its own message.
    #[error("{}", messages.join("; "))]
    Invalid {
        /// All that was found.
        messages: Vec<String>,
    },
    /// The host's name cannot be used as the node's.
    #[error("couldn't determine hostname: {0}; give --hostname-override")]
    Hostname(String),
}
