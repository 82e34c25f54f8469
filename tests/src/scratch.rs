//! Folders that vanish with the test, however it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A folder. Dropping it takes down what is mounted in it and removes it; so does the end of this process.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    reaper: Child,
    /// As long as it is open, the reaper waits.
    tether: Option<ChildStdin>,
}

/// Waits for the end of its input, then unmounts, deepest first, and removes. A process that dies with the tests
/// may need a moment to let go, hence the second try.
const REAPER: &str = r#"
trap '' INT TERM
cat >/dev/null
sweep() {
    awk -v top="$1/" 'index($2, top) == 1 { print length($2), $2 }' /proc/self/mounts | sort -rn | cut -d" " -f2 |
        while read -r place; do umount --lazy "$place"; done
    rm -rf "$1"
}
sweep "$1" 2>/dev/null || { sleep 1; sweep "$1"; }
"#;

impl Scratch {
    /// A new, empty folder with this in its name.
    pub fn new(name: &str) -> Result<Self> {
        let prefix = format!("coracle-{name}-");
        let folder = TempDir::with_prefix(&prefix).context("cannot make a folder")?.keep();
        let mut reaper = Command::new("sh");
        reaper.args(["-c", REAPER, "reaper"]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null());
        // In a process group of its own, so that Ctrl-C does not reach it.
        std::os::unix::process::CommandExt::process_group(&mut reaper, 0);
        let mut reaper = reaper.spawn().context("cannot start a shell")?;
        let tether = reaper.stdin.take();
        Ok(Self { folder, reaper, tether })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file, and the folders that lead to it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            fs::write(&path, content.as_ref())
        };
        write().with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.tether.take());
        let _ = self.reaper.wait();
    }
}
