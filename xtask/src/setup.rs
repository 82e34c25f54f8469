//! `setup`: the control plane and the registry of the system tests, in a folder of the cache.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{apt, guests, paths, shell};

/// What version the binaries say they are; tests/go/kubernetes/go.mod pins the same.
const KUBERNETES: &str = "v1.37.2";

/// The engine that is compared with; the workspace's Cargo.toml pins the same.
const WASMTIME: &str = "48.0.8";

/// Packages of tests/go that make a binary: its name, the module that pins it, and the package.
const GO_BINARIES: &[(&str, &str, &str)] = &[
    ("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "kubernetes", "./kubectl"),
    ("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("streamclient", "kubernetes", "./streamclient"),
    ("metrics-server", "metrics", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    ("oras", "artifacts", "oras.land/oras/cmd/oras"),
    ("crane", "artifacts", "github.com/google/go-containerregistry/cmd/crane"),
];

/// What else the tests call, and the Debian packages that hold it.
const TOOLS: &[(&str, &str)] =
    &[("curl", "curl"), ("ip", "iproute2"), ("setpriv", "util-linux"), ("unshare", "util-linux")];

/// Makes the folder complete and gives its path. A second run at the same time waits for the first.
pub(crate) fn run() -> Result<PathBuf> {
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| paths::find_program(tool).is_none()) {
        bail!("`{tool}` is not installed: `apt-get install {package}`");
    }
    let home = paths::cache().join("bed");
    fs::create_dir_all(&home)?;
    let lock = File::create(home.join(".lock"))?;
    lock.lock().context("cannot lock the cache")?;

    let bed = home.join(key()?);
    fs::create_dir_all(&bed)?;
    for (name, module, package) in GO_BINARIES {
        let is_there = bed.join(name).exists() && !is_older_than_source(&bed.join(name), module, package)?;
        if is_there || link_asset(&bed, name)? {
            continue;
        }
        shell::step(&format!("building {name}"), || go_build(&bed, name, module, package))?;
    }
    if !bed.join("docker-registry").exists() {
        shell::step("getting docker-registry", || docker_registry(&bed))?;
    }
    if !bed.join("skopeo").exists() {
        shell::step("getting skopeo", || skopeo(&bed))?;
    }
    if !bed.join("promtool").exists() {
        shell::step("getting promtool", || promtool(&bed))?;
    }
    if !bed.join("containers").exists() {
        shell::step("getting containerd", || containers(&bed))?;
    }
    guests::provide(&bed)?;
    make_current(&home, &bed)?;
    Ok(bed)
}

/// A name that changes with everything that the binaries are made from.
fn key() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for module in ["artifacts", "etcd", "kubernetes", "metrics"] {
        for file in ["go.mod", "go.sum"] {
            let path = paths::repository().join("tests/go").join(module).join(file);
            fs::read(&path).with_context(|| path.display().to_string())?.hash(&mut hasher);
        }
    }
    env::var_os("KUBEBUILDER_ASSETS").hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Programs of the repository itself may change without their module. What is only linked was not built here.
fn is_older_than_source(binary: &Path, module: &str, package: &str) -> Result<bool> {
    let Some(package) = package.strip_prefix("./").filter(|_| !binary.is_symlink()) else { return Ok(false) };
    let built = binary.metadata()?.modified()?;
    for file in fs::read_dir(paths::repository().join("tests/go").join(module).join(package))? {
        if file?.metadata()?.modified()? > built {
            return Ok(true);
        }
    }
    Ok(false)
}

fn link_asset(bed: &Path, name: &str) -> Result<bool> {
    let Some(asset) = paths::set("KUBEBUILDER_ASSETS").map(|folder| folder.join(name)) else {
        return Ok(false);
    };
    if !asset.is_file() {
        return Ok(false);
    }
    symlink(&asset, bed.join(name))?;
    Ok(true)
}

fn go_build(bed: &Path, name: &str, module: &str, package: &str) -> Result<()> {
    if paths::find_program("go").is_none() {
        bail!("`go` is not installed: install Go 1.26 or newer (or set KUBEBUILDER_ASSETS)");
    }
    let stamp = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let mut numbers = KUBERNETES.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let stamps = [stamp("gitVersion", KUBERNETES), stamp("gitMajor", major), stamp("gitMinor", minor)];
    let unfinished = bed.join(format!(".{name}"));
    let mut go = Command::new("go");
    go.current_dir(paths::repository().join("tests/go").join(module)).env("CGO_ENABLED", "0");
    go.args(["build", "-trimpath", "-ldflags", &format!("-s -w {}", stamps.join(" ")), "-o"]);
    shell::run(go.arg(&unfinished).arg(package))?;
    fs::rename(&unfinished, bed.join(name))?;
    Ok(())
}

/// The peer of the benches of guests, optimised as Coracle is. Only they need it, and it takes minutes to build.
pub(crate) fn wasmtime(bed: &Path) -> Result<()> {
    let program = bed.join("wasmtime");
    let place = paths::cache().join(format!("wasmtime-{WASMTIME}"));
    let built = place.join("bin/wasmtime");
    if !built.exists() {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--locked", "--version", WASMTIME, "--no-default-features"]);
        cargo.args([
            "--features",
            "serve,run,cranelift,component-model-async,pooling-allocator,parallel-compilation",
        ]);
        cargo.arg("--root").arg(&place).arg("wasmtime-cli");
        cargo.env("CARGO_TARGET_DIR", place.join("target"));
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "thin").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4");
        shell::step(&format!("building wasmtime {WASMTIME}"), || shell::run(&mut cargo))?;
        fs::remove_dir_all(place.join("target"))?;
    }
    let _ = fs::remove_file(&program);
    symlink(&built, &program).with_context(|| program.display().to_string())
}

fn docker_registry(bed: &Path) -> Result<()> {
    let binary = match paths::find_program("docker-registry") {
        Some(installed) => installed,
        None => {
            let packages = bed.join("debian");
            apt::unpack(&["docker-registry"], &packages)
                .context("install docker-registry (`apt-get install docker-registry`) and run this again")?;
            packages.join("usr/bin/docker-registry")
        }
    };
    symlink(&binary, bed.join("docker-registry"))?;
    Ok(())
}

/// What is not installed is run with the libraries of its own packages.
fn skopeo(bed: &Path) -> Result<()> {
    if let Some(installed) = paths::find_program("skopeo") {
        return Ok(symlink(installed, bed.join("skopeo"))?);
    }
    let packages = bed.join("debian");
    apt::unpack(&["skopeo", "libgpgme11", "libassuan0"], &packages)
        .context("install skopeo (`apt-get install skopeo`) and run this again")?;
    let libraries = packages.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    let (libraries, program) = (libraries.display(), packages.join("usr/bin/skopeo"));
    let script = format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' \"$@\"\n", program.display());
    let unfinished = bed.join(".skopeo");
    fs::write(&unfinished, script)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
    fs::rename(&unfinished, bed.join("skopeo"))?;
    Ok(())
}

/// Part of Prometheus; it needs no libraries of its own.
fn promtool(bed: &Path) -> Result<()> {
    if let Some(installed) = paths::find_program("promtool") {
        return Ok(symlink(installed, bed.join("promtool"))?);
    }
    let packages = bed.join("debian");
    apt::unpack(&["prometheus"], &packages)
        .context("install prometheus (`apt-get install prometheus`) and run this again")?;
    Ok(symlink(packages.join("usr/bin/promtool"), bed.join("promtool"))?)
}

/// containerd, runc, the plugins of container networks and a shell for images, as a tree of their packages: what is
/// installed on the machine is left alone.
fn containers(bed: &Path) -> Result<()> {
    let unfinished = bed.join(".containers");
    let packages = ["containerd", "runc", "containernetworking-plugins", "busybox-static", "libseccomp2"];
    apt::unpack(&packages, &unfinished).context("the packages of containerd cannot be had")?;
    fs::rename(&unfinished, bed.join("containers"))?;
    Ok(())
}

/// `current` leads to the folder made last, for tests that are run without xtask.
fn make_current(home: &Path, bed: &Path) -> Result<()> {
    let current = home.join("current");
    if fs::read_link(&current).is_ok_and(|target| target == bed) {
        return Ok(());
    }
    let unfinished = home.join(".current");
    let _ = fs::remove_file(&unfinished);
    symlink(bed, &unfinished)?;
    fs::rename(&unfinished, &current)?;
    Ok(())
}
