//! What a provider is made with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::compile::{CompileLimits, CompilerCommand};
use crate::guest::ServiceLimits;
use crate::image;
use crate::network::Network;

/// What a provider is made with. It takes nothing from its surroundings but what is here: no environment, no working
/// folder, no current runtime.
///
/// One thing is the process's and not the provider's: the engine handles SIGSEGV and SIGFPE, by which guests trap,
/// and passes on those that are not a guest's.
#[derive(Clone, Debug)]
pub struct Options {
    /// The provider's folder: images, compiled code, records. Nobody else may write to it, and no other process may
    /// have it open.
    pub root: PathBuf,
    /// The runtime for decisions. Guests and their connections never run on it. Compilers are started from its threads.
    pub control: Handle,
    /// The runtime for the connections of HTTP services. May be the same as `control` where nobody measures.
    pub io: Handle,
    /// The network of the pods.
    pub network: Network,
    /// The image store. Its root is replaced by `root`.
    pub images: image::Options,
    /// How to start a compiler: this program, so called that it runs [`compile_child`](crate::compile_child).
    pub compiler: CompilerCommand,
    /// Limits of one compilation.
    pub compile: CompileLimits,
    /// Limits of guests.
    pub guests: GuestLimits,
    /// Limits of each HTTP service.
    pub services: ServiceLimits,
}

/// Limits of all guests together, and of those for which nobody set one.
#[derive(Clone, Debug)]
pub struct GuestLimits {
    /// Threads that run guests.
    pub threads: usize,
    /// Threads that wait for guests' files, at most.
    pub file_threads: usize,
    /// Guests at once, commands and requests in flight together. Each takes 4 GiB of the process's address space, of
    /// which there are 128 TiB, and about 7 of its memory mappings (`vm.max_map_count`, 65,530 by default).
    pub instances: u32,
    /// The longest time that a guest computes before others get their turn.
    pub tick: Duration,
    /// Memory in bytes for a container without a limit of its own. Without a bound a single loop could take the
    /// node's memory, in pieces that no clock interrupts.
    pub default_memory_bytes: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            file_threads: 64,
            instances: 8_000,
            tick: Duration::from_millis(1),
            default_memory_bytes: 4 << 30,
        }
    }
}

impl Options {
    /// The defaults for a program that runs [`compile_child`](crate::compile_child) when it is called with
    /// `wasm compile`.
    pub fn new(root: impl Into<PathBuf>, control: Handle, io: Handle, network: Network) -> Self {
        let root = root.into();
        Self {
            images: image::Options::new(&root),
            root,
            control,
            io,
            network,
            compiler: CompilerCommand {
                program: "/proc/self/exe".into(),
                args: ["wasm", "compile"].map(OsString::from).into(),
            },
            compile: CompileLimits::default(),
            guests: GuestLimits::default(),
            services: ServiceLimits::default(),
        }
    }
}
