//! Runs WebAssembly pods inside the calling process.
//!
//! [`WasmProvider`] is a provider as `coracle-provider` describes it. From an image to a running guest:
//!
//! 1. [`image`] fetches it and finds the one WebAssembly binary in it.
//! 2. `compile` turns that into native code, once, in a child process with limits, and keeps it on disk.
//! 3. `provider` makes sandboxes, whose network is [`network`]'s, and containers; `journal` remembers them.
//! 4. `guest` links the code, and runs it: a command to its end, or an HTTP service with an instance for each request.
//!    `engine` interrupts what computes too long, `logs` writes what guests say.
//!
//! Three kinds of threads keep out of each other's way: the caller's runtimes decide and do I/O, the provider's own run
//! guests, and one thread each writes records and logs. [`Options`] says what the provider takes from its surroundings.

mod compile;
mod engine;
mod guest;
pub mod image;
mod journal;
mod logs;
mod metrics;
pub mod network;
mod options;
mod provider;

pub use compile::{CompileLimits, CompilerCommand, compile_child};
pub use guest::ServiceLimits;
pub use options::{GuestLimits, Options};
pub use provider::WasmProvider;
