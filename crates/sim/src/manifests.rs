//! The folder of static pods. The agent learns of changes with delay.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::pod::PodExt;
use coracle_core::ports::{PodSource, SourceKind, SourceUpdate};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::faults::Faults;
use crate::history::{Fact, History};

/// The manifests on the node, by file.
pub(crate) struct Manifests {
    pods: watch::Sender<BTreeMap<String, Arc<Pod>>>,
    dice: Dice,
    faults: Arc<Faults>,
    history: Arc<History>,
}

impl Manifests {
    pub(crate) fn new(dice: Dice, faults: Arc<Faults>, history: Arc<History>) -> Arc<Self> {
        Arc::new(Self { pods: watch::Sender::default(), dice, faults, history })
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.borrow().values().cloned().collect()
    }

    pub(crate) fn get(&self, file: &str) -> Option<Arc<Pod>> {
        self.pods.borrow().get(file).cloned()
    }

    /// Somebody writes a file.
    pub(crate) fn put(&self, file: &str, pod: Arc<Pod>) {
        self.history.tell(&pod.uid(), Fact::Created(pod.clone()));
        self.pods.send_modify(|pods| _ = pods.insert(file.to_owned(), pod));
    }

    /// Somebody removes a file.
    pub(crate) fn remove(&self, file: &str) {
        if let Some(pod) = self.get(file) {
            self.history.note(&pod.uid(), "its manifest is removed");
            self.pods.send_modify(|pods| _ = pods.remove(file));
        }
    }

    pub(crate) fn clear(&self) {
        self.pods.send_modify(BTreeMap::clear);
    }

    /// Tells what a reader of the folder learns, who saw these pods there before.
    fn tell_seen(&self, before: &[Arc<Pod>], now: &[Arc<Pod>]) {
        for gone in before.iter().filter(|old| now.iter().all(|new| new.uid() != old.uid())) {
            self.history.tell(&gone.uid(), Fact::Unwanted);
        }
        for pod in now {
            self.history.tell(&pod.uid(), Fact::Seen { grace: None, phase: String::new() });
        }
    }
}

#[async_trait]
impl PodSource for Manifests {
    fn kind(&self) -> SourceKind {
        SourceKind::File
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        let (mut changes, mut before) = (self.pods.subscribe(), Vec::new());
        loop {
            sleep(self.faults.watch_delay(&self.dice)).await;
            let pods: Vec<Arc<Pod>> = changes.borrow_and_update().values().cloned().collect();
            self.tell_seen(&before, &pods);
            before.clone_from(&pods);
            if updates.send(SourceUpdate::Set(pods)).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                () = updates.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}
