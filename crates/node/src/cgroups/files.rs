//! Files and folders of control groups. Writing never makes a file: those of the kernel are there or not.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use coracle_core::ports::CgroupError;

use super::Result;

/// A group whose last process ends this very moment cannot be removed yet (`retryingRemove`).
const REMOVE_ATTEMPTS: u32 = 5;
const REMOVE_DELAY: Duration = Duration::from_millis(10);

/// A file, or a folder, with what went wrong with it.
pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    move |error| CgroupError::Io { path: path.to_owned(), error }
}

/// Writes a value at once, as the kernel wants it.
pub(super) fn write(folder: &Path, file: &str, value: impl ToString) -> Result<()> {
    let path = folder.join(file);
    let write =
        || OpenOptions::new().write(true).truncate(true).open(&path)?.write_all(value.to_string().as_bytes());
    write().map_err(failed(&path))
}

/// Reads a value without space around it.
pub(super) fn read(folder: &Path, file: &str) -> Result<String> {
    let path = folder.join(file);
    fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(failed(&path))
}

/// Reads a number; one that is larger than any counts as the largest.
pub(super) fn read_number(folder: &Path, file: &str) -> Result<i64> {
    let text = read(folder, file)?;
    if text == "max" {
        return Ok(i64::MAX);
    }
    let number = text.parse::<i128>().map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let path = folder.join(file);
    number.map_err(|_| {
        failed(&path)(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no number")))
    })
}

/// The number behind a name in a file of many; 0 if it is not there.
pub(super) fn read_field(folder: &Path, file: &str, name: &str) -> Result<u64> {
    let text = read(folder, file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    Ok(value.unwrap_or_default())
}

/// Memory that is worked with, and the limit; none if that is more than any machine has.
pub(super) fn memory(used: i64, inactive: u64, limit: i64) -> (u64, Option<u64>) {
    const UNLIMITED: i64 = i64::MAX / 2;
    let used = u64::try_from(used).unwrap_or_default().saturating_sub(inactive);
    (used, u64::try_from(limit).ok().filter(|_| limit < UNLIMITED))
}

/// Makes one folder; one that is there is fine.
pub(super) fn make(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(folder)(error)),
        _ => Ok(()),
    }
}

/// The names of the folders in one; none if it is not there.
pub(super) fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// Removes a group and those below, the lowest first. Only folders are removed: the kernel's files go with them.
pub(super) fn remove_tree(folder: &Path) -> Result<()> {
    for child in folders_in(folder)? {
        remove_tree(&folder.join(child))?;
    }
    let mut delay = REMOVE_DELAY;
    for attempt in 1.. {
        match fs::remove_dir(folder) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) if attempt == REMOVE_ATTEMPTS => return Err(failed(folder)(error)),
            Err(_) => sleep(delay),
        }
        delay *= 2;
    }
    Ok(())
}
