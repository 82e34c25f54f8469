//! Files that are read again when they change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::TlsError;

/// How often the files are looked at, at most, while they are in use. Nothing happens while they are not.
const RELOAD_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What the files say, given their contents in order.
type Parse<T> = fn(&[Vec<u8>]) -> Result<T, String>;

/// Something that is made from files, and made again when they change. As long as what they hold cannot be used, the
/// last good thing is.
pub(crate) struct Reloading<T> {
    paths: Vec<PathBuf>,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// The files that the value was made from.
    stamps: Vec<Stamp>,
    checked: Instant,
    /// The last error, so that it is logged once.
    error: Option<String>,
}

/// Tells one state of a file from another: modification time, length, and inode, which changes with a rename.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(i64, i64, u64, u64);

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Reads the files for the first time. Blocks the thread.
    pub(crate) fn load(paths: Vec<PathBuf>, parse: Parse<T>) -> Result<Self, TlsError> {
        let stamps = stamps(&paths)?;
        let value = Arc::new(read(&paths, parse)?);
        let state = Mutex::new(State { value, stamps, checked: Instant::now(), error: None });
        Ok(Self { paths, parse, state })
    }

    /// What the files said when last looked at.
    pub(crate) fn latest(&self) -> Arc<T> {
        self.state.lock().value.clone()
    }

    /// Looks whether the files have changed, unless that was done just now.
    pub(crate) async fn refresh(&self) {
        let current = {
            let mut state = self.state.lock();
            if state.checked.elapsed() < RELOAD_CHECK_PERIOD {
                return;
            }
            state.checked = Instant::now();
            state.stamps.clone()
        };
        let (paths, parse) = (self.paths.clone(), self.parse);
        let changed = tokio::task::spawn_blocking(move || {
            // The stamps are taken first: a change while reading is seen at the next look.
            let stamps = stamps(&paths)?;
            if stamps == current {
                return Ok(None);
            }
            Ok(Some((stamps, read(&paths, parse)?)))
        });
        match changed.await {
            Ok(Ok(None)) => self.state.lock().error = None,
            Ok(Ok(Some((stamps, value)))) => {
                info!(paths = ?self.paths, "loaded changed files");
                let mut state = self.state.lock();
                (state.stamps, state.value, state.error) = (stamps, Arc::new(value), None);
            }
            Ok(Err(error)) => self.keep_after(&error),
            // The runtime is going down.
            Err(_) => {}
        }
    }

    fn keep_after(&self, error: &TlsError) {
        let error = error.to_string();
        let mut state = self.state.lock();
        if state.error.as_ref() != Some(&error) {
            warn!(%error, "changed files cannot be used; what was loaded before stays in use");
            state.error = Some(error);
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Result<Vec<Stamp>, TlsError> {
    paths
        .iter()
        .map(|path| stamp(path).map_err(|source| TlsError::Read { path: path.clone(), source }))
        .collect()
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp(metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino()))
}

fn read<T>(paths: &[PathBuf], parse: Parse<T>) -> Result<T, TlsError> {
    let contents = paths
        .iter()
        .map(|path| fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source }))
        .collect::<Result<Vec<_>, _>>()?;
    parse(&contents).map_err(|reason| TlsError::Content { paths: paths.to_vec(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_number(contents: &[Vec<u8>]) -> Result<u32, String> {
        String::from_utf8_lossy(&contents[0]).parse().map_err(|_| "not a number".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_taken_over_and_bad_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let load = || Reloading::load(vec![path.clone()], parse_number);
        assert!(matches!(load(), Err(TlsError::Read { .. })));
        fs::write(&path, "x").unwrap();
        assert!(matches!(load(), Err(TlsError::Content { .. })));
        fs::write(&path, "1").unwrap();
        let number = load().unwrap();
        let refreshed = async || {
            tokio::time::advance(RELOAD_CHECK_PERIOD).await;
            number.refresh().await;
            *number.latest()
        };
        assert_eq!(refreshed().await, 1);
        fs::write(&path, "20").unwrap();
        number.refresh().await;
        assert_eq!(*number.latest(), 1, "it was looked at just now");
        assert_eq!(refreshed().await, 20);
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(refreshed().await, 20);
        fs::remove_file(&path).unwrap();
        assert_eq!(refreshed().await, 20);
        // As a mounted secret changes: another file under the same name.
        fs::write(directory.path().join("new"), "30").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!(refreshed().await, 30);
    }
}
