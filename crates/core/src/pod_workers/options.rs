//! What a pod worker is told, and what it calls.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_provider::PodRef;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::oneshot;

use crate::kuberuntime::RuntimePod;
use crate::pod::{PodExt, PodUid};

/// Why a pod is looked at (`kubetypes.SyncPodType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPodType {
    /// Something in the runtime changed, or it is time again.
    Sync,
    /// The pod's object changed.
    Update,
    /// The pod is new.
    Create,
    /// The pod is to end.
    Kill,
}

/// Which pod an update is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A pod that somebody wants, or wanted.
    Pod(Arc<Pod>),
    /// Something in the runtime that nobody wants: all that is known of it.
    RunningPod(PodRef),
}

impl Subject {
    /// Its UID.
    pub fn uid(&self) -> PodUid {
        match self {
            Self::Pod(pod) => pod.uid(),
            Self::RunningPod(pod) => pod.uid.as_str().into(),
        }
    }

    /// Its full name, `name_namespace`.
    pub fn full_name(&self) -> String {
        match self {
            Self::Pod(pod) => pod.full_name(),
            Self::RunningPod(pod) => format!("{}_{}", pod.name, pod.namespace),
        }
    }

    /// The pod's object, if there is one.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::RunningPod(_) => None,
        }
    }
}

/// Changes the status of a pod that is killed: an eviction writes its reason with it.
pub type PodStatusFn = Arc<dyn Fn(&mut PodStatus) + Send + Sync>;

/// How to kill a pod.
#[derive(Default)]
pub struct KillPodOptions {
    /// Told when nothing of the pod runs any more.
    pub completed: Option<oneshot::Sender<()>>,
    /// The node takes the pod away to save itself: what is on disk goes soon, too.
    pub evict: bool,
    /// What the status is to say.
    pub pod_status_fn: Option<PodStatusFn>,
    /// Seconds that replace the pod's own grace period, if they are fewer.
    pub grace_period_seconds_override: Option<i64>,
}

impl fmt::Debug for KillPodOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KillPodOptions")
            .field("evict", &self.evict)
            .field("grace_period_seconds_override", &self.grace_period_seconds_override)
            .finish_non_exhaustive()
    }
}

/// One message to a pod worker (`UpdatePodOptions`).
#[derive(Debug)]
pub struct UpdatePodOptions {
    /// Why.
    pub update_type: SyncPodType,
    /// About which pod.
    pub subject: Subject,
    /// With `Kill`: how.
    pub kill: Option<KillPodOptions>,
}

impl UpdatePodOptions {
    /// An update about a wanted pod.
    pub fn new(update_type: SyncPodType, pod: Arc<Pod>) -> Self {
        Self { update_type, subject: Subject::Pod(pod), kill: None }
    }
}

/// Why a sync did not succeed, and when to try again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// A newer update took over.
    #[error("the sync was cancelled by a newer update")]
    Cancelled,
    /// The pod has to wait for the network of its provider.
    #[error("network is not ready: {0}")]
    NetworkNotReady(String),
    /// Something failed; where a back-off says when to go on, that is the time.
    #[error("{message}")]
    Failed {
        /// What.
        message: String,
        /// When it makes sense to try again.
        retry_at: Option<Timestamp>,
    },
}

impl SyncError {
    /// A failure without a time to try again.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), retry_at: None }
    }
}

/// The work itself (upstream: `podSyncer`, which `Kubelet` implements). Calls for one pod never overlap; dropping a
/// call must leave everything so that the next one can go on.
#[async_trait]
pub trait PodSyncer: Send + Sync {
    /// What the runtimes have of the pod now, at least as new as the outcome of the last sync.
    async fn runtime_pod(&self, pod: &Pod) -> Result<RuntimePod, SyncError>;

    /// Brings the pod closer to what it should be. True once it has come to its own end.
    async fn sync_pod(&self, update_type: SyncPodType, pod: &Arc<Pod>) -> Result<bool, SyncError>;

    /// Stops everything of the pod; after success nothing of it runs.
    async fn sync_terminating_pod(
        &self,
        pod: &Arc<Pod>,
        runtime: RuntimePod,
        grace_period_seconds: Option<i64>,
        pod_status_fn: Option<PodStatusFn>,
    ) -> Result<(), SyncError>;

    /// The same for something that is only in the runtime.
    async fn sync_terminating_runtime_pod(&self, pod: &PodRef) -> Result<(), SyncError>;

    /// Gives back everything else that the pod held.
    async fn sync_terminated_pod(&self, pod: &Arc<Pod>, runtime: RuntimePod) -> Result<(), SyncError>;

    /// A running sync was dropped: what it was doing may still happen.
    fn sync_abandoned(&self, uid: &PodUid);
}
