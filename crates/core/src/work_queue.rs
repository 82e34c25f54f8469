//! When to look at what again (upstream: `pkg/kubelet/util/queue`, drained by a ticker of a second there).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::pod::PodUid;

/// Pods, or other things, and the times at which they are due. One time each: the latest `enqueue` wins.
#[derive(Debug)]
pub struct WorkQueue<K = PodUid> {
    inner: Mutex<Inner<K>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    due: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        let inner = Inner { due: HashMap::new(), order: BTreeSet::new() };
        Self { inner: Mutex::new(inner), earlier: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// Makes something due after `delay`.
    pub fn enqueue(&self, key: K, delay: Duration) {
        self.enqueue_at(key, Instant::now() + delay);
    }

    /// Makes something due at a time. What is due already stays so: whoever asked for that has not been heard yet.
    pub fn enqueue_at(&self, key: K, at: Instant) {
        let mut inner = self.inner.lock();
        if inner.due.get(&key).is_some_and(|old| *old <= Instant::now()) {
            return;
        }
        if let Some(old) = inner.due.insert(key.clone(), at) {
            inner.order.remove(&(old, key.clone()));
        }
        inner.order.insert((at, key.clone()));
        let is_first = inner.order.first().is_some_and(|(_, first)| *first == key);
        drop(inner);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Forgets something.
    pub fn remove(&self, key: &K) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.due.remove(key) {
            inner.order.remove(&(at, key.clone()));
        }
    }

    /// Waits until something is due and takes all that is, the longest due first. Dropping the future takes nothing.
    pub async fn due(&self) -> Vec<K> {
        loop {
            let next = self.inner.lock().order.first().map(|(at, _)| *at);
            match next {
                Some(at) if at <= Instant::now() => return self.take_due(),
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }

    /// What waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn keys(&self) -> Vec<K> {
        self.inner.lock().due.keys().cloned().collect()
    }

    fn take_due(&self) -> Vec<K> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let mut due = Vec::new();
        while inner.order.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = inner.order.pop_first() {
                inner.due.remove(&key);
                due.push(key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_not_put_off() {
        let queue = WorkQueue::default();
        queue.enqueue("a", Duration::ZERO);
        queue.enqueue("a", Duration::from_secs(60));
        let began = Instant::now();
        assert_eq!(queue.due().await, ["a"]);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_pod_wakes_the_waiter_and_the_latest_time_wins() {
        let queue = WorkQueue::<PodUid>::default();
        let start = Instant::now();
        queue.enqueue("slow".into(), Duration::from_secs(60));
        queue.enqueue("slow".into(), Duration::from_secs(30));
        let (due, ()) = tokio::join!(queue.due(), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            queue.enqueue("quick".into(), Duration::ZERO);
        });
        assert_eq!(due, [PodUid::from("quick")]);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(queue.due().await, [PodUid::from("slow")]);
        assert!(start.elapsed() < Duration::from_secs(31));
    }
}
