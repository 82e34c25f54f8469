//! The tasks of the provider.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts the tasks of the provider, ends them, and knows when they have ended.
#[derive(Clone)]
pub(super) struct Spawner {
    control: Handle,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Spawner {
    /// `control` is the runtime for decisions.
    pub(super) fn new(control: Handle) -> Self {
        Self { control, tasks: TaskTracker::new(), ending: CancellationToken::new() }
    }

    /// Starts a task on the runtime for decisions. It answers with nothing if the provider ends before it does.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.spawn_on(work, &self.control)
    }

    /// Starts a task on another runtime.
    pub(super) fn spawn_on<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        runtime: &Handle,
    ) -> JoinHandle<Option<T>> {
        self.tasks.spawn_on(self.ending.clone().run_until_cancelled_owned(work), runtime)
    }

    /// Drops what all tasks are doing.
    pub(super) fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
    }

    /// Waits until no task is left.
    pub(super) async fn ended(&self) {
        self.tasks.wait().await;
    }
}
