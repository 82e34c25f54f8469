//! The files of one log: the one that is written, and those that were before it.
//!
//! `0.log` is written; `0.log.20260102-030405` was until that moment (UTC), and is compressed to
//! `0.log.20260102-030405.gz` at the next rotation: until then, followers finish reading it. So names sort by age.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

const TIMESTAMP_FORMAT: &str = "%Y%m%d-%H%M%S";
const COMPRESS_SUFFIX: &str = ".gz";
const TMP_SUFFIX: &str = ".tmp";

/// A step of a rotation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub(crate) struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// Removes all files of a log (`Clean`). Blocks.
pub(crate) fn clean(log: &Path) -> Result<(), FileError> {
    for file in older_files(log)?.into_iter().chain([log.to_owned()]) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::at("remove", &file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes ready for one more file, so that with it and the one that is written there are at most `max_files`: removes
/// the oldest and compresses the others. Blocks.
pub(super) fn make_room(log: &Path, max_files: usize) -> Result<(), FileError> {
    let older = remove_excess_logs(cleanup_unused_logs(older_files(log)?)?, max_files)?;
    for file in older.iter().filter(|file| !ends_with(file, COMPRESS_SUFFIX)) {
        compress_log(file)?;
    }
    Ok(())
}

/// What a log is called that is put aside now.
pub(super) fn rotated(log: &Path, now: Timestamp) -> PathBuf {
    with_suffix(log, &format!(".{}", now.strftime(TIMESTAMP_FORMAT)))
}

/// All files beside the log whose names begin with its name and a dot, sorted.
pub(super) fn older_files(log: &Path) -> Result<Vec<PathBuf>, FileError> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let mut prefix = name.to_owned();
    prefix.push(".");
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FileError::at("list", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::at("list", folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Removes what rotations that were interrupted have left, and answers the rest.
pub(super) fn cleanup_unused_logs(files: Vec<PathBuf>) -> Result<Vec<PathBuf>, FileError> {
    let (in_use, unused): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| is_in_use(file, &files));
    for file in &unused {
        fs::remove_file(file).map_err(FileError::at("remove", file))?;
    }
    Ok(in_use)
}

/// Neither half written nor compressed already.
fn is_in_use(file: &Path, all: &[PathBuf]) -> bool {
    if ends_with(file, TMP_SUFFIX) {
        return false;
    }
    ends_with(file, COMPRESS_SUFFIX) || !all.contains(&with_suffix(file, COMPRESS_SUFFIX))
}

/// Removes the oldest, so that there is room for the file that is written and the one that is about to be put aside.
pub(super) fn remove_excess_logs(
    mut files: Vec<PathBuf>,
    max_files: usize,
) -> Result<Vec<PathBuf>, FileError> {
    files.sort();
    let excess = files.len().saturating_sub(max_files.saturating_sub(2));
    for file in files.drain(..excess) {
        fs::remove_file(&file).map_err(FileError::at("remove", &file))?;
    }
    Ok(files)
}

/// Replaces a file by a compressed one, of which nothing is seen until it is whole.
pub(super) fn compress_log(log: &Path) -> Result<(), FileError> {
    let tmp = with_suffix(log, TMP_SUFFIX);
    let compressed = write_compressed(log, &tmp)
        .and_then(|()| fs::rename(&tmp, with_suffix(log, COMPRESS_SUFFIX)))
        .and_then(|()| fs::remove_file(log));
    if compressed.is_err() {
        // Else the next rotation does it.
        let _ = fs::remove_file(&tmp);
    }
    compressed.map_err(FileError::at("compress", log))
}

fn write_compressed(log: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(log)?;
    let mode = from.metadata()?.permissions().mode();
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(to)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish().map(drop)
}

fn ends_with(path: &Path, suffix: &str) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
