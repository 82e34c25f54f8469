//! Files out of Debian packages, without installing them: `apt-get download` and `dpkg -x`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// Unpacks packages of the machine's own release into a folder. Refreshes the package lists if need be, which takes
/// root.
pub(crate) fn unpack(packages: &[&str], into: &Path) -> Result<()> {
    let download = |folder: &Path| download(&[], packages, folder);
    let folder = scratch(into)?;
    if download(&folder).is_err() {
        shell::run(Command::new("apt-get").args(["update", "--quiet=2"]))
            .context("the package lists are too old")?;
        download(&folder)?;
    }
    extract(&folder, into)
}

/// Unpacks packages (`name=version`) of a release that the machine does not have into a folder. The machine's own
/// apt configuration is left alone.
pub(crate) fn unpack_from(suites: &[&str], packages: &[&str], into: &Path) -> Result<()> {
    let folder = scratch(into)?;
    for part in ["etc/preferences.d", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let sources: String =
        suites.iter().map(|suite| format!("deb {key} http://deb.debian.org/debian {suite} main\n")).collect();
    fs::write(folder.join("etc/sources.list"), sources)?;
    let place = |name: &str, path: &str| format!("-o{name}={}", folder.join(path).display());
    let options = [
        place("Dir::Etc", "etc"),
        place("Dir::Etc::sourcelist", "etc/sources.list"),
        place("Dir::State::lists", "lists"),
        place("Dir::Cache", "cache"),
        "-oDir::Etc::sourceparts=-".to_owned(),
    ];
    shell::run(Command::new("apt-get").args(&options).args(["update", "--quiet=2"]))?;
    download(&options, packages, &folder)?;
    extract(&folder, into)
}

fn scratch(into: &Path) -> Result<PathBuf> {
    let folder = into.join(".apt");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn download(options: &[String], packages: &[&str], folder: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    // As root, apt warns that its unprivileged user can't write here; it then downloads as root.
    command.current_dir(folder).args(options).args(["download", "--quiet=2", "-oAPT::Sandbox::User=root"]);
    shell::output(command.args(packages)).map(drop)
}

fn extract(folder: &Path, into: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
        }
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}
