//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The folder of the repository. Cargo says where that is when it runs this program: what it said at build time may be
/// another checkout with the same cache.
pub(crate) fn repository() -> PathBuf {
    let manifest = set("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    manifest.parent().unwrap_or(&manifest).to_path_buf()
}

/// What is kept between runs: `${XDG_CACHE_HOME:-~/.cache}/coracle`.
pub(crate) fn cache() -> PathBuf {
    let home = || Path::new(&env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    set("XDG_CACHE_HOME").unwrap_or_else(home).join("coracle")
}

/// Where cargo builds: `$CARGO_TARGET_DIR`, else a folder in the cache.
pub(crate) fn target() -> PathBuf {
    set("CARGO_TARGET_DIR").unwrap_or_else(|| cache().join("target"))
}

/// A program on the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// An environment variable that names a path; empty counts as unset.
pub(crate) fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
