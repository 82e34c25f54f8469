//! The runtimes of the process. Guests have further ones, inside the WebAssembly provider.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Threads that decide: sync loop, pod workers, status. They never compute for long.
const CONTROL_THREADS: usize = 2;

/// The runtimes that the binary starts. Dropping them ends their tasks.
pub(crate) struct Runtimes {
    /// Decisions.
    pub(crate) control: Runtime,
    /// Connections of guests' HTTP services.
    pub(crate) io: Runtime,
}

impl Runtimes {
    /// Starts them.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = |name: &str, threads: usize| {
            Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // A connection takes less time than what answers it. With a thread for each core, these and those of guests would
        // take the cores from each other in the middle of requests: half of them serve more, and twice as soon.
        let io_threads = (cores / 2).max(1);
        Ok(Self { control: runtime("control", CONTROL_THREADS)?, io: runtime("io", io_threads)? })
    }
}
