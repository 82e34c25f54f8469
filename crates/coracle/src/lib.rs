//! The `coracle` binary, in parts: flags and configuration, and the wiring of everything else.

pub mod cli;
pub mod config;
mod exit;
pub mod kubelet;
mod logging;
pub mod run;
mod runtimes;
mod signals;
mod version;
