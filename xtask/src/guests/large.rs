//! Guests that bring a language's runtime along. They are too large for the repository, so they are built into the cache,
//! once for each state of their sources and of what builds them.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{paths, shell};

/// The version of WASI that the guests' sources name.
const WASI: &str = "0.2.12";
/// The version of WASI that the JavaScript engine was built for, and insists on.
const WASI_OF_JAVASCRIPT: &str = "0.2.10";

/// What is built from one folder of tests/guests.
struct Language {
    folder: &'static str,
    guests: &'static [&'static str],
    /// Programs that building takes.
    tools: &'static [&'static str],
    /// Says what the outcome depends on besides the sources.
    version: fn() -> Result<String>,
    /// Builds in a folder that holds the sources; the guests are to be there afterwards.
    build: fn(&Path) -> Result<()>,
}

const LANGUAGES: &[Language] = &[
    Language {
        folder: "go",
        guests: &["go"],
        tools: &["go"],
        version: || shell::output(Command::new("go").arg("version")),
        build: go,
    },
    Language {
        folder: "javascript",
        guests: &["javascript-http"],
        tools: &["node", "npm"],
        version: no_more,
        build: javascript,
    },
    Language {
        folder: "python",
        guests: &["python-command", "python-http"],
        tools: &["python3"],
        version: no_more,
        build: python,
    },
];

/// Makes sure that all of them are in the cache, and puts links to them into the folder `guests` of the bed.
pub(crate) fn provide(bed: &Path) -> Result<()> {
    let links = bed.join("guests");
    fs::create_dir_all(&links)?;
    for language in LANGUAGES {
        let built = language.built()?;
        for guest in language.guests {
            let (file, link) = (format!("{guest}.wasm"), links.join(format!("{guest}.wasm")));
            let target = built.join(&file);
            if !fs::read_link(&link).is_ok_and(|there| there == target) {
                let _ = fs::remove_file(&link);
                symlink(target, &link).with_context(|| link.display().to_string())?;
            }
        }
    }
    Ok(())
}

impl Language {
    /// The folder with the guests, which are built if need be.
    fn built(&self) -> Result<PathBuf> {
        let home = paths::cache().join("guests");
        let built = home.join(format!("{}-{:016x}", self.folder, self.key()?));
        if built.exists() {
            return Ok(built);
        }
        if let Some(tool) = self.tools.iter().find(|tool| paths::find_program(tool).is_none()) {
            bail!("`{tool}` is not installed: the guests {} are built with it", self.guests.join(", "));
        }
        let (work, unfinished) = (home.join(format!(".{}", self.folder)), home.join(".unfinished"));
        for folder in [&work, &unfinished] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder)?;
        }
        shell::run(Command::new("cp").arg("-r").arg(self.sources().join(".")).arg(&work))?;
        shell::step(&format!("building guests in {}", self.folder), || (self.build)(&work))?;
        for guest in self.guests {
            let file = format!("{guest}.wasm");
            fs::rename(work.join(&file), unfinished.join(&file)).context(file)?;
        }
        fs::remove_dir_all(&work)?;
        fs::rename(&unfinished, &built)?;
        Ok(built)
    }

    fn sources(&self) -> PathBuf {
        paths::repository().join("tests/guests").join(self.folder)
    }

    /// A number that changes with everything that the guests are made from.
    fn key(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        (self.version)()?.hash(&mut hasher);
        include_str!("large.rs").hash(&mut hasher);
        for folder in [self.sources(), worlds()] {
            let mut files: Vec<PathBuf> = fs::read_dir(&folder)
                .with_context(|| folder.display().to_string())?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<std::io::Result<_>>()?;
            files.sort();
            for file in files {
                file.file_name().hash(&mut hasher);
                fs::read(&file).with_context(|| file.display().to_string())?.hash(&mut hasher);
            }
        }
        Ok(hasher.finish())
    }
}

/// Everything is pinned beside the sources.
fn no_more() -> Result<String> {
    Ok(String::new())
}

fn go(work: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(work).env("GOOS", "wasip1").env("GOARCH", "wasm").env("CGO_ENABLED", "0");
    shell::run(go.args(["build", "-trimpath", "-ldflags", "-s -w", "-o", "go.wasm", "."]))
}

fn javascript(work: &Path) -> Result<()> {
    lay_worlds(work, WASI_OF_JAVASCRIPT)?;
    let mut npm = Command::new("npm");
    npm.current_dir(work).args([
        "install",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    shell::run(&mut npm)?;
    let mut node = Command::new("node");
    node.current_dir(work).arg("node_modules/@bytecodealliance/componentize-js/src/cli.js");
    node.args(["http.js", "--wit", "wit", "--world-name", "http", "--out", "javascript-http.wasm"]);
    shell::run(&mut node)
}

fn python(work: &Path) -> Result<()> {
    lay_worlds(work, WASI)?;
    let tools = work.join("tools");
    let mut pip = Command::new("python3");
    pip.current_dir(work).args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"]);
    shell::run(pip.arg(&tools).args(["--requirement", "requirements.txt"]))?;
    for (world, module, guest) in
        [("command", "python_command", "python-command"), ("http-with-files", "python_http", "python-http")]
    {
        let mut componentize = Command::new(tools.join("bin/componentize-py"));
        componentize.current_dir(work).env("PYTHONPATH", &tools).env_remove("VIRTUAL_ENV");
        componentize.args(["--quiet", "--wit-path", "wit", "--world", world, "componentize", module]);
        shell::run(componentize.args(["--output", &format!("{guest}.wasm")]))?;
    }
    Ok(())
}

/// Puts the guests' worlds into a folder `wit`, with the packages of WASI beside them.
fn lay_worlds(work: &Path, version: &str) -> Result<()> {
    let wit = work.join("wit");
    fs::create_dir_all(wit.join("deps"))?;
    for (from, to) in [(worlds(), wit.clone()), (wasi()?, wit.join("deps"))] {
        for entry in fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            fs::write(to.join(entry.file_name()), fs::read_to_string(entry.path())?.replace(WASI, version))?;
        }
    }
    Ok(())
}

fn worlds() -> PathBuf {
    paths::repository().join("tests/guests/wit")
}

/// The packages of WASI, as a crate that the Rust guests use has them.
fn wasi() -> Result<PathBuf> {
    let manifest = paths::repository().join("tests/guests/Cargo.toml");
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--locked", "--format-version=1", "--manifest-path"]).arg(manifest);
    let metadata: Value = serde_json::from_str(&shell::output(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let wasi = format!("+wasi-{WASI}");
    let holds = |package: &&Value| {
        package["name"] == "wasip2" && package["version"].as_str().is_some_and(|v| v.ends_with(&wasi))
    };
    let manifest = packages.iter().find(holds).and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.with_context(|| format!("no guest uses wasip2 with WASI {WASI}"))?);
    Ok(manifest.with_file_name("wit").join("deps"))
}
