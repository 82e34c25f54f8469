//! Flags and configuration of `coracle kubelet`, as a user gives them.

mod docs;
mod files;
mod flags;
mod upstream;

use std::fs;

use clap::Parser;
use coracle::config::{ConfigError, KubeletArgs, Resolved};

#[derive(Parser)]
#[command(name = "coracle")]
enum Cli {
    Kubelet(KubeletArgs),
}

/// Parses `coracle kubelet ARGS`.
fn args(args: &[&str]) -> Result<KubeletArgs, clap::Error> {
    let Cli::Kubelet(parsed) = Cli::try_parse_from(["coracle", "kubelet"].iter().chain(args))?;
    Ok(parsed)
}

/// Parses and resolves `coracle kubelet ARGS`, which have to parse.
fn resolve(given: &[&str]) -> Result<Resolved, ConfigError> {
    match args(given) {
        Ok(args) => args.resolve(),
        Err(error) => panic!("{error}"),
    }
}

/// A directory of configuration files that goes away with this value.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Writes a file, with the directories it is in, and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn directory(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }
}
