//! Changes of providers that have begun and may not have ended.
//!
//! Dropping a call ends the waiting and not the work: a sandbox may come when the sync that asked for it is long gone.
//! Nobody says that nothing of a pod is there before all changes of it have ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_provider::{Error, Result};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::pod::PodUid;
use crate::pod_cache::{PodCache, ProviderName};

/// The changes of all pods.
pub(super) struct InFlight {
    pods: Mutex<BTreeMap<PodUid, TaskTracker>>,
    cache: Arc<PodCache>,
}

/// Somebody who waits for a change. Until its answer has come, nobody knows what is there.
struct Waiting<'a> {
    cache: &'a PodCache,
    provider: ProviderName,
    uid: &'a PodUid,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.cache.mark_stale(self.provider, self.uid);
        }
    }
}

impl InFlight {
    pub(super) fn new(cache: Arc<PodCache>) -> Self {
        Self { pods: Mutex::default(), cache }
    }

    /// Makes a change, in a task of its own. One that fails may have done something before it did; one that is dropped
    /// will: the pod has to be listed then.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        provider: ProviderName,
        uid: &PodUid,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut waiting = Waiting { cache: &self.cache, provider, uid, answered: false };
        let task = self.pods.lock().entry(uid.clone()).or_default().spawn(change);
        let result = task.await.unwrap_or_else(|error| Err(Error::internal(error.to_string())));
        waiting.answered = result.is_ok();
        self.forget_ended(uid);
        result
    }

    /// Waits until all changes of a pod have ended.
    pub(super) async fn settle(&self, uid: &PodUid) {
        let Some(changes) = self.pods.lock().get(uid).cloned() else { return };
        changes.close();
        changes.wait().await;
        self.forget_ended(uid);
    }

    fn forget_ended(&self, uid: &PodUid) {
        let mut pods = self.pods.lock();
        if pods.get(uid).is_some_and(TaskTracker::is_empty) {
            pods.remove(uid);
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) fn uids(&self) -> Vec<String> {
        self.pods.lock().keys().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_that_nobody_waits_for_is_waited_for_before_the_pod_is_judged() {
        let (cache, uid) = (Arc::new(PodCache::default()), PodUid::from("u"));
        let changes = InFlight::new(cache.clone());
        let start = Instant::now();
        let change = async {
            sleep(Duration::from_secs(10)).await;
            Ok(())
        };
        tokio::select! {
            _ = changes.change("p", &uid, change) => panic!("it ended"),
            () = sleep(Duration::from_secs(1)) => {}
        }
        assert!(cache.is_stale(&uid) && cache.knows("p", &uid) && !cache.knows("q", &uid));
        changes.settle(&PodUid::from("other")).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        changes.settle(&uid).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert!(changes.pods.lock().is_empty());
    }
}
