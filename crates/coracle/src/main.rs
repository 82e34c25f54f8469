//! Coracle: a kubelet that runs WebAssembly pods inside its own process.

use std::process::ExitCode;

use clap::Parser;
use coracle::cli::{Cli, Command, WasmCommand};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => coracle::run::main(args),
        Command::Kubelet(args) => coracle::kubelet::main(args),
        Command::Wasm(WasmCommand::Compile) => coracle_wasm::compile_child(),
    }
}
