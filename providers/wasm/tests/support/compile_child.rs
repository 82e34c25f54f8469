//! The compile child of the tests: what a program does that is called to compile.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_wasm::compile_child()
}
