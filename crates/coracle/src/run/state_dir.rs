//! Where `coracle run` keeps its state.
//!
//! A folder belongs to one process at a time. Runs that go on beside each other get folders of their own: the default
//! one has numbered places, and each run takes the first that is free. What was compiled there is found again.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Runs at a time without `--root-dir`.
const MAX_PLACES: usize = 256;

/// A folder that nobody else uses until this is dropped.
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Takes the folder that was asked for, or the first free one of the default.
    pub(super) fn open(asked: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = asked {
            let path = std::path::absolute(path)?;
            return match Self::take(&path)? {
                Some(state) => Ok(state),
                None => bail!("{} is in use by another coracle", path.display()),
            };
        }
        let base = default_base()?;
        for place in 0..MAX_PLACES {
            if let Some(state) = Self::take(&base.join(place.to_string()))? {
                return Ok(state);
            }
        }
        bail!("{MAX_PLACES} runs use {}; give this one a --root-dir of its own", base.display())
    }

    fn take(path: &Path) -> anyhow::Result<Option<Self>> {
        let describe = || format!("cannot use {} for state", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(describe)?;
        let lock = File::create(path.join("run.lock")).with_context(describe)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(describe),
        }
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// `coracle/run` in the XDG state folder.
fn default_base() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state =
        state.context("neither XDG_STATE_HOME nor HOME is set; say where to keep state with --root-dir")?;
    Ok(state.join("coracle/run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(Some(folder.path())).unwrap();
        assert!(StateDir::open(Some(folder.path())).is_err());
        drop(first);
        assert!(StateDir::open(Some(folder.path())).is_ok());
    }
}
