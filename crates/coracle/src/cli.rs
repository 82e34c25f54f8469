//! The command line.

use clap::{Parser, Subcommand};

use crate::config::KubeletArgs;
use crate::run::RunArgs;

/// A kubelet that runs WebAssembly pods inside its own process.
#[derive(Debug, Parser)]
#[command(name = "coracle", version = crate::version::kubelet_version(), propagate_version = false)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a WebAssembly file or a pod, without a cluster
    Run(RunArgs),
    /// Run pods of a Kubernetes cluster on this machine
    Kubelet(KubeletArgs),
    /// Parts of the WebAssembly runtime
    #[command(subcommand, hide = true)]
    Wasm(WasmCommand),
}

/// Parts of the WebAssembly runtime that are programs of their own.
#[derive(Debug, Subcommand)]
pub enum WasmCommand {
    /// Compile one module from standard input to standard output; started by the runtime itself
    Compile,
}
