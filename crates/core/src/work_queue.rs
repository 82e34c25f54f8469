//! When to look at which pod again (upstream: `pkg/kubelet/util/queue`, drained by a ticker of a second there).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::pod::PodUid;

/// Pods and the times at which they are due. One time a pod: the latest `enqueue` wins.
#[derive(Debug, Default)]
pub struct WorkQueue {
    inner: Mutex<Inner>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    due: HashMap<PodUid, Instant>,
    order: BTreeSet<(Instant, PodUid)>,
}

impl WorkQueue {
    /// Makes a pod due after `delay`.
    pub fn enqueue(&self, uid: PodUid, delay: Duration) {
        let at = Instant::now() + delay;
        let mut inner = self.inner.lock();
        if let Some(old) = inner.due.insert(uid.clone(), at) {
            inner.order.remove(&(old, uid.clone()));
        }
        inner.order.insert((at, uid.clone()));
        let is_first = inner.order.first().is_some_and(|(_, first)| *first == uid);
        drop(inner);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.due.remove(uid) {
            inner.order.remove(&(at, uid.clone()));
        }
    }

    /// Waits until pods are due and takes them. Dropping the future takes nothing.
    pub async fn due(&self) -> Vec<PodUid> {
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

    fn take_due(&self) -> Vec<PodUid> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let mut due = Vec::new();
        while inner.order.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, uid)) = inner.order.pop_first() {
                inner.due.remove(&uid);
                due.push(uid);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_earlier_pod_wakes_the_waiter_and_the_latest_time_wins() {
        let queue = WorkQueue::default();
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
