//! Runs WebAssembly pods inside the calling process.

mod compile;
mod engine;
mod guest;
pub mod image;
mod journal;
mod logs;
pub mod network;
mod options;
mod provider;

pub use compile::{CompileLimits, CompilerCommand, compile_child};
pub use guest::ServiceLimits;
pub use options::{GuestLimits, Options};
pub use provider::WasmProvider;
