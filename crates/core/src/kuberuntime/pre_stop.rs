//! Hooks that run before containers stop (upstream: `executePreStopHook`).
//!
//! A hook runs once for each instance of a container, in a task of its own. The kill that started it may be dropped and
//! made anew, because the pod is to end sooner than it was; the new one waits for the same hook.

use std::collections::HashMap;
use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// Hooks of containers that are being stopped, by the container's id.
#[derive(Default)]
pub(super) struct PreStopHooks {
    started: Mutex<HashMap<String, Hook>>,
}

struct Hook {
    pod_uid: String,
    ended: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl PreStopHooks {
    /// Runs the hook of a container, unless it has been started before, and waits for its end, at the latest until the
    /// deadline. A hook that has not ended goes on until it is forgotten.
    pub(super) async fn run(
        &self,
        container_id: &str,
        pod_uid: &str,
        deadline: Instant,
        hook: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut ended = {
            let mut started = self.started.lock();
            let entry = started.entry(container_id.to_owned());
            entry.or_insert_with(|| Hook::start(pod_uid, hook)).ended.clone()
        };
        // A hook that broke off has ended as well.
        let _ = timeout_at(deadline, ended.wait_for(|ended| *ended)).await;
    }

    /// The container has stopped. A hook that still runs is for nothing.
    pub(super) fn forget(&self, container_id: &str) {
        self.started.lock().remove(container_id);
    }

    #[cfg(feature = "simulation")]
    pub(super) fn pod_uids(&self) -> Vec<String> {
        self.started.lock().values().map(|hook| hook.pod_uid.clone()).collect()
    }

    /// Nothing of the pod runs any more.
    pub(super) fn forget_pod(&self, uid: &str) {
        self.started.lock().retain(|_, hook| hook.pod_uid != uid);
    }
}

impl Hook {
    fn start(pod_uid: &str, hook: impl Future<Output = ()> + Send + 'static) -> Self {
        let (sender, ended) = watch::channel(false);
        let task = tokio::spawn(async move {
            hook.await;
            sender.send_replace(true);
        });
        Self { pod_uid: pod_uid.to_owned(), ended, _task: AbortOnDropHandle::new(task) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_hook_runs_once_and_every_kill_waits_for_it() {
        let (hooks, runs) = (PreStopHooks::default(), Arc::new(AtomicUsize::new(0)));
        let hook = || {
            let runs = runs.clone();
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                sleep(10 * SECOND).await;
            }
        };
        let start = Instant::now();
        tokio::select! {
            () = hooks.run("c", "u", start + 30 * SECOND, hook()) => panic!("it ended"),
            () = sleep(4 * SECOND) => {}
        }
        hooks.run("c", "u", start + 20 * SECOND, hook()).await;
        assert_eq!(start.elapsed(), 10 * SECOND);
        hooks.run("c", "u", start + 20 * SECOND, hook()).await;
        assert_eq!(start.elapsed(), 10 * SECOND, "it is over");
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        hooks.forget("c");
        hooks.run("c", "u", start + 12 * SECOND, hook()).await;
        assert_eq!(start.elapsed(), 12 * SECOND, "no longer than the deadline");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        hooks.forget_pod("u");
        assert!(hooks.started.lock().is_empty());
    }
}
