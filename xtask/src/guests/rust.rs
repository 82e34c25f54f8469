//! Guests in Rust.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::keep;
use crate::{apt, paths, shell};

const P1: &str = "wasm32-wasip1";
const P2: &str = "wasm32-wasip2";

/// What is built: package, artifact, target, and the name that it gets.
const GUESTS: &[(&str, &str, &str, &str)] = &[
    ("commands", "dns", P2, "dns"),
    ("commands", "env", P1, "env"),
    ("commands", "exit", P1, "exit"),
    ("commands", "files", P1, "files"),
    ("commands", "hello", P1, "hello"),
    ("commands", "imports", P1, "imports"),
    ("commands", "oom", P1, "oom"),
    ("commands", "stay", P1, "stay"),
    ("commands", "files", P2, "files-p2"),
    ("commands", "hello", P2, "hello-p2"),
    ("commands", "stay", P2, "stay-p2"),
    ("commands", "sockets", P2, "sockets"),
    ("commands", "tcp", P2, "tcp"),
    ("http", "http", P2, "http"),
    // There is no target for WASI 0.3 yet: the standard library is that of 0.2, what is exported is of 0.3.
    ("command-p3", "command_p3", P2, "command-p3"),
    ("files-p3", "files_p3", P2, "files-p3"),
    ("http-p3", "http_p3", P2, "http-p3"),
    ("sockets-p3", "sockets_p3", P2, "sockets-p3"),
];

/// Where a compiler without installed targets gets the standard library's sources and a C library from.
const DEBIAN_SUITES: &[&str] = &["trixie", "trixie-backports"];
const WASI_LIBC: &str = "wasi-libc=0.0~git20260129.ec0effd-3~bpo13+1";

/// What guests there are.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GUESTS.iter().map(|guest| guest.3)
}

/// Builds those that are wanted.
pub(super) fn build(is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let wanted = || GUESTS.iter().filter(|guest| is_wanted(guest.3));
    if wanted().next().is_none() {
        return Ok(());
    }
    let compiler = Compiler::find()?;
    let folder = paths::repository().join("tests/guests");
    let target = paths::cache().join("guests-target");
    for &(package, artifact, triple, _) in wanted() {
        let mut cargo = compiler.cargo(triple);
        cargo.current_dir(&folder).env("CARGO_TARGET_DIR", &target).args(["--package", package]);
        shell::run(if package == "commands" { cargo.args(["--bin", artifact]) } else { cargo.arg("--lib") })?;
    }
    for &(_, artifact, triple, name) in wanted() {
        keep(&target.join(triple).join("release").join(format!("{artifact}.wasm")), name)?;
    }
    Ok(())
}

/// How guests are compiled on this machine.
enum Compiler {
    /// With the targets that rustup installed.
    Rustup,
    /// With a standard library that is built on the way, by a `rustc` that finds its parts in another sysroot.
    BuildStd { rustc: PathBuf, sysroot: PathBuf },
}

impl Compiler {
    fn find() -> Result<Self> {
        let sysroot =
            PathBuf::from(shell::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
        let has = |triple: &str| sysroot.join("lib/rustlib").join(triple).join("lib").is_dir();
        if has(P1) && has(P2) {
            return Ok(Self::Rustup);
        }
        eprintln!(
            "The targets {P1} and {P2} are not installed (`rustup target add {P1} {P2}`): building the standard library from Debian's packages."
        );
        Self::from_debian(&sysroot)
    }

    /// Debian carries the sources of the standard library and wasi-libc. They are joined with links to the
    /// installed toolchain into a sysroot in the cache, so that the toolchain itself stays as it is.
    fn from_debian(toolchain: &Path) -> Result<Self> {
        let version = compiler_version()?;
        let place = paths::cache().join(format!("guests-rust-{version}"));
        let (packages, sysroot, rustc) = (place.join("packages"), place.join("sysroot"), place.join("rustc"));
        if !rustc.exists() {
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir_all(&packages)?;
            let source = format!("rust-src={version}+dfsg1-2~bpo13+1");
            shell::step("unpacking Debian's rust-src and wasi-libc", || {
                apt::unpack_from(DEBIAN_SUITES, &[&source, WASI_LIBC], &packages)
            })?;
            assemble(toolchain, &packages, &version, &sysroot)?;
            let real = toolchain.join("bin/rustc");
            let script =
                format!("#!/bin/sh\nexec {} --sysroot {} \"$@\"\n", real.display(), sysroot.display());
            fs::write(&rustc, script)?;
            fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self::BuildStd { rustc, sysroot })
    }

    fn cargo(&self, triple: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "--target", triple]);
        // Panic messages name source files: keep this machine's folders out of what is committed.
        let mut remap =
            format!("--remap-path-prefix={}=/guests", paths::repository().join("tests/guests").display());
        if let Some(home) = paths::set("CARGO_HOME").or_else(|| Some(paths::set("HOME")?.join(".cargo"))) {
            remap.push_str(&format!(" --remap-path-prefix={}=/cargo", home.display()));
        }
        if let Self::BuildStd { rustc, sysroot } = self {
            let source = sysroot.join("lib/rustlib/src/rust");
            remap.push_str(&format!(" --remap-path-prefix={}=/rust", source.display()));
            cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        cargo.env("RUSTFLAGS", remap);
        cargo
    }
}

fn compiler_version() -> Result<String> {
    let line = shell::output(Command::new("rustc").arg("--version"))?;
    let version = line.split_whitespace().nth(1).context("rustc --version says no version")?;
    Ok(version.to_owned())
}

fn assemble(toolchain: &Path, packages: &Path, version: &str, sysroot: &Path) -> Result<()> {
    fs::create_dir_all(sysroot)?;
    for part in ["bin", "lib"] {
        shell::run(Command::new("cp").arg("-rs").arg(toolchain.join(part)).arg(sysroot))?;
    }
    let rustlib = sysroot.join("lib/rustlib");
    let source = packages.join(format!("usr/src/rustc-{version}"));
    if !source.is_dir() {
        bail!("the package rust-src holds no {}", source.display());
    }
    fs::create_dir_all(rustlib.join("src"))?;
    symlink(source, rustlib.join("src/rust"))?;
    for triple in [P1, P2] {
        let folder = rustlib.join(triple).join("lib");
        fs::create_dir_all(&folder)?;
        symlink(packages.join("usr/lib").join(triple), folder.join("self-contained"))?;
    }
    Ok(())
}
