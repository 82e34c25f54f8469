//! Several checkouts share one folder of build results.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::{paths, shell};

/// Makes sure that what is built is this checkout. Cargo tells by the time of a source file whether it changed, and
/// takes the result of another checkout for one of this if that was built later: the sources are given a new time.
pub(crate) fn claim_target() -> Result<()> {
    let (here, target) = (paths::repository(), paths::target());
    let mark = target.join("checkout");
    let owner = fs::read(&mark).ok();
    if owner.as_deref() == Some(here.as_os_str().as_encoded_bytes()) {
        return Ok(());
    }
    if owner.is_some() {
        touch_sources(&here)?;
    }
    fs::create_dir_all(&target)?;
    fs::write(&mark, here.as_os_str().as_encoded_bytes()).with_context(|| mark.display().to_string())
}

fn touch_sources(repository: &Path) -> Result<()> {
    let list = shell::output(Command::new("git").current_dir(repository).args(["ls-files", "-z", "*.rs"]))?;
    let now = SystemTime::now();
    for path in list.split_terminator('\0').map(|name| repository.join(name)).filter(|path| path.is_file()) {
        File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(now))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
