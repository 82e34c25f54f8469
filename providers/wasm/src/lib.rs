//! Runs WebAssembly pods inside the calling process.

mod compile;
mod engine;
pub mod image;
pub mod network;

pub use compile::{CompileError, CompileLimits, CompilerCommand, compile_child};
pub use engine::EngineError;
