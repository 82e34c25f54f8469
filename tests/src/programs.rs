//! Where the programs are that the bed starts.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// A program of the control plane, from `$CORACLE_BED`, else from what `cargo xtask setup` made last.
pub fn bed(name: &str) -> Result<PathBuf> {
    in_bed(name, Path::is_file)
}

/// A folder of programs, from the same place.
pub fn bed_folder(name: &str) -> Result<PathBuf> {
    in_bed(name, Path::is_dir)
}

fn in_bed(name: &str, is_right: fn(&Path) -> bool) -> Result<PathBuf> {
    let folder = set("CORACLE_BED").or_else(current).context("no bed: run `cargo xtask setup`")?;
    let path = folder.join(name);
    if !is_right(&path) {
        bail!("{} is missing: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}

/// The coracle binary, from `$CORACLE_BIN`, else the one that was built beside this test.
pub fn coracle() -> Result<PathBuf> {
    let beside = || {
        let here = env::current_exe().ok()?;
        here.ancestors().skip(1).take(2).map(|folder| folder.join("coracle")).find(|path| path.is_file())
    };
    let program =
        set("CORACLE_BIN").or_else(beside).context("no coracle binary: run `cargo build -p coracle`")?;
    if !program.is_file() {
        bail!("{} is missing: run `cargo build -p coracle`", program.display());
    }
    Ok(program)
}

/// The folder of the repository. Cargo says where that is when it runs a test: what it said at build time may be another
/// checkout with the same cache.
pub fn repository() -> &'static Path {
    static REPOSITORY: OnceLock<PathBuf> = OnceLock::new();
    REPOSITORY.get_or_init(|| {
        let manifest = set("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let found = manifest.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
        found.unwrap_or(&manifest).to_path_buf()
    })
}

fn current() -> Option<PathBuf> {
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("coracle/bed/current"))
}

fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
