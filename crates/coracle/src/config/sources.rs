//! The files a configuration comes from: `--config` and the drop-ins of `--config-dir`.

use std::fs;
use std::path::{Path, PathBuf};

use super::document;
use super::error::ConfigError;
use super::values::Values;

/// Reads both sources, drop-ins over the main file, with defaults filled in after each as upstream does.
pub(super) fn load(
    config: Option<&Path>,
    drop_ins: Option<&Path>,
    standalone: bool,
) -> Result<Values, ConfigError> {
    let mut values = match config {
        Some(path) => main_file(path)?,
        None => Values::default(),
    };
    values.fill_defaults(standalone);
    if let Some(directory) = drop_ins {
        for path in drop_in_files(directory)? {
            values.merge(document::read(&path)?);
        }
        values.fill_defaults(standalone);
    }
    Ok(values)
}

fn main_file(path: &Path) -> Result<Values, ConfigError> {
    let absolute = std::path::absolute(path).map_err(|source| read_error(path, source))?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    Ok(Values::from_main_file(document::read(path)?, directory))
}

/// The `*.conf` files under a directory, in the order of `filepath.WalkDir`: by name, a subdirectory in its place.
fn drop_in_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut entries = fs::read_dir(directory)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(|source| read_error(directory, source))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(|source| read_error(&path, source))?.is_dir() {
            files.extend(drop_in_files(&path)?);
        } else if entry.file_name().as_encoded_bytes().ends_with(b".conf") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_error(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source }
}
