//! Where pods come from.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

/// The kind of a source, as upstream writes it into `kubernetes.io/config.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// Manifests on disk.
    File,
    /// Manifests from a URL.
    Http,
    /// The apiserver.
    Api,
}

impl SourceKind {
    /// The value of the annotation `kubernetes.io/config.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Api => "api",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a source says. Upstream resends all pods at every event; here an event is one pod.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    /// Everything this source wants, after a list: whatever is not in it is gone.
    Set(Vec<Arc<Pod>>),
    /// One pod is new or different.
    Apply(Arc<Pod>),
    /// One pod is gone.
    Delete(Arc<Pod>),
}

/// A source of pods.
#[async_trait]
pub trait PodSource: Send + Sync {
    /// Which kind.
    fn kind(&self) -> SourceKind;

    /// Sends updates until the receiver is dropped. The first is a `Set`. Errors are the source's own business: it
    /// logs them and tries again. Dropping the future ends the source.
    async fn run(&self, updates: mpsc::Sender<SourceUpdate>);
}
