//! Runs the sources and hands their changes to the sync loop, one stream for all (upstream: `PodConfig`).

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::merge::{Merger, PodUpdate};
use crate::ports::{PodSource, SourceKind};
use crate::recorder::Recorder;

/// Updates that wait for the sync loop, per source.
const BUFFER: usize = 50;

/// The sources of pods of this node.
pub struct PodConfig {
    sources: Vec<Arc<dyn PodSource>>,
    recorder: Recorder,
}

impl PodConfig {
    /// These sources. Pods that cannot be taken are told to `recorder`.
    pub fn new(sources: Vec<Arc<dyn PodSource>>, recorder: Recorder) -> Self {
        Self { sources, recorder }
    }

    /// Which sources have to speak before anything is cleaned up.
    pub fn sources_ready(&self) -> SourcesReady {
        SourcesReady { wanted: self.sources.iter().map(|s| s.kind()).collect(), seen: RwLock::default() }
    }

    /// Starts the sources. They end when the answer's second part is dropped.
    pub fn start(self) -> (mpsc::Receiver<PodUpdate>, JoinSet<()>) {
        let (updates, receiver) = mpsc::channel(BUFFER);
        let mut tasks = JoinSet::new();
        for source in self.sources {
            let (raw, raw_receiver) = mpsc::channel(BUFFER);
            let merger = Merger::new(source.kind(), self.recorder.clone());
            tasks.spawn(merge_source(merger, raw_receiver, updates.clone()));
            tasks.spawn(async move { source.run(raw).await });
        }
        (receiver, tasks)
    }
}

async fn merge_source(
    mut merger: Merger,
    mut raw: mpsc::Receiver<crate::ports::SourceUpdate>,
    updates: mpsc::Sender<PodUpdate>,
) {
    while let Some(update) = raw.recv().await {
        for update in merger.merge(update) {
            if updates.send(update).await.is_err() {
                return;
            }
        }
    }
}

/// Which sources have spoken (upstream: `SourcesReady`). Before all have, an unknown pod may still be wanted.
#[derive(Debug, Default)]
pub struct SourcesReady {
    wanted: HashSet<SourceKind>,
    seen: RwLock<HashSet<SourceKind>>,
}

impl SourcesReady {
    /// A source has spoken.
    pub fn add_source(&self, source: SourceKind) {
        if !self.seen.read().contains(&source) {
            self.seen.write().insert(source);
        }
    }

    /// Whether all have.
    pub fn all_ready(&self) -> bool {
        self.wanted.is_subset(&self.seen.read())
    }
}
