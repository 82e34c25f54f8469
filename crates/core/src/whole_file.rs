//! Files that are there as a whole or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How a file is called that is not complete yet.
pub(crate) const TEMPORARY: &str = "tmp";

/// Replaces a file, which only its owner may read. It is not synced to the disk: it outlives this process, and not
/// always the machine. Blocks.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    fs::rename(&temporary, path)
}
