//! Lists and watches. Notices about one object keep their order, as an apiserver's do; those of different objects
//! overtake each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::pod::PodExt;
use coracle_core::ports::{PodSource, SourceKind, SourceUpdate};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Api, Notice};
use crate::history::Fact;

#[async_trait]
impl PodSource for Api {
    fn kind(&self) -> SourceKind {
        SourceKind::Api
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        loop {
            let (pods, notices) = self.list_and_watch();
            sleep(self.faults.watch_delay(&self.dice)).await;
            for pod in &pods {
                self.tell_seen(pod);
            }
            if updates.send(SourceUpdate::Set(pods)).await.is_err() {
                return;
            }
            if !self.watch(notices, &updates).await {
                return;
            }
            self.history.note("", "api: the watch broke off");
            sleep(self.faults.watch_delay(&self.dice)).await;
        }
    }
}

/// Notices that are on their way: when they arrive, and in which order they were sent.
type OnTheWay = BTreeMap<(Instant, u64), Notice>;

impl Api {
    fn list_and_watch(&self) -> (Vec<Arc<Pod>>, mpsc::UnboundedReceiver<Notice>) {
        let (watch, notices) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.watches.push(watch);
        (state.pods.values().cloned().collect(), notices)
    }

    /// Hands notices on until the watch breaks off. Says whether anybody still listens.
    async fn watch(
        &self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        updates: &mpsc::Sender<SourceUpdate>,
    ) -> bool {
        let mut on_the_way = OnTheWay::new();
        let mut last: BTreeMap<String, Instant> = BTreeMap::new();
        let mut sent = 0;
        loop {
            let next = on_the_way.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                biased;
                notice = notices.recv() => {
                    let Some(notice) = notice else { return true };
                    let at = Instant::now() + self.faults.watch_delay(&self.dice);
                    let last = last.entry(notice.pod().name().to_owned()).or_insert(at);
                    *last = at.max(*last);
                    let copies = if self.faults.watch_doubles(&self.dice) { 2 } else { 1 };
                    for _ in 0..copies {
                        sent += 1;
                        on_the_way.insert((*last, sent), notice.clone());
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some((_, notice)) = on_the_way.pop_first() else { continue };
                    let update = match notice {
                        Notice::Changed(pod) => {
                            self.tell_seen(&pod);
                            SourceUpdate::Apply(pod)
                        }
                        Notice::Gone(pod) => SourceUpdate::Delete(pod),
                    };
                    if updates.send(update).await.is_err() {
                        return false;
                    }
                }
                () = updates.closed() => return false,
            }
        }
    }

    /// Whatever becomes of a mirror, the static pod runs.
    fn tell_seen(&self, pod: &Pod) {
        if pod.is_mirror() {
            return;
        }
        let grace = pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
        self.history.tell(&pod.uid(), Fact::Seen { grace, phase: pod.phase().to_owned() });
    }
}
