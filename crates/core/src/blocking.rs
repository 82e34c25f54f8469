//! Work on files, away from the threads of the pipeline.

use std::io;

/// Runs work that blocks, and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // Another thread would end at another moment in each run.
    #[cfg(feature = "simulation")]
    if crate::clock::simulated::is_on() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
