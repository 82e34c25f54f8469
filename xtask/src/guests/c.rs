//! The guest in C, built with the compiler and the C library that come with Zig: one package, whatever the machine is.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::keep;
use crate::{paths, shell};

pub(super) const NAME: &str = "c";

const COMPILER: &str = "ziglang==0.15.1";

pub(super) fn build() -> Result<()> {
    let place = paths::cache().join("guests").join(COMPILER.replace("==", "-"));
    if !place.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"])
            .arg(&place)
            .arg(COMPILER);
        shell::step("getting a C compiler", || shell::run(&mut pip))?;
    }
    let scratch = place.join("cache");
    fs::create_dir_all(&scratch)?;
    let built = scratch.join("c.wasm");
    let mut compiler = Command::new("python3");
    compiler.env("PYTHONPATH", &place);
    compiler.env("ZIG_GLOBAL_CACHE_DIR", &scratch).env("ZIG_LOCAL_CACHE_DIR", &scratch);
    compiler.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-Os", "-s"]);
    compiler.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&built);
    shell::run(compiler.arg(paths::repository().join("tests/guests/c/c.c")))?;
    keep(&built, NAME)
}
