//! Runs WebAssembly pods inside the calling process.

pub mod image;
pub mod network;
