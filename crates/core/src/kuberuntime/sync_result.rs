//! What became of the steps of a sync (upstream: `container/sync_result.go`).

use jiff::Timestamp;

use crate::pod_workers::SyncError;

/// Reasons of failed steps, as a container's waiting state shows them.
pub(crate) mod reason {
    pub(crate) const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
    pub(crate) const CREATE_CONTAINER: &str = "CreateContainerError";
    pub(crate) const CREATE_CONTAINER_CONFIG: &str = "CreateContainerConfigError";
    pub(crate) const CREATE_POD_SANDBOX: &str = "CreatePodSandboxError";
    pub(crate) const IMAGE_INSPECT: &str = "ImageInspectError";
    pub(crate) const IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    pub(crate) const IMAGE_PULL: &str = "ErrImagePull";
    pub(crate) const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
    pub(crate) const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    pub(crate) const KILL_CONTAINER: &str = "KillContainerError";
    pub(crate) const KILL_POD_SANDBOX: &str = "KillPodSandboxError";
    pub(crate) const MOUNT_VOLUME: &str = "FailedMount";
    pub(crate) const POST_START_HOOK: &str = "PostStartHookError";
    pub(crate) const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
    pub(crate) const REMOVE_CONTAINER: &str = "RemoveContainerError";
    pub(crate) const RESIZE_POD_IN_PLACE: &str = "ResizePodInPlaceError";
    pub(crate) const RUN_CONTAINER: &str = "RunContainerError";
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncAction {
    /// Made volumes present.
    MountVolumes,
    /// Made a sandbox.
    CreatePodSandbox,
    /// Stopped a sandbox.
    KillPodSandbox,
    /// Started a container.
    StartContainer,
    /// Stopped a container.
    KillContainer,
    /// Removed a container, so that it starts anew.
    RemoveContainer,
    /// Changed resources of containers that run.
    ResizePodInPlace,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFailure {
    /// One word from upstream's list.
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// When it makes sense to try again, if that is known.
    pub retry_at: Option<Timestamp>,
}

impl SyncFailure {
    /// A failure that says nothing of when to try again.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_at: None }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncStep {
    /// What it did.
    pub action: SyncAction,
    /// To which container or pod.
    pub target: String,
    /// Why it failed; none if it did not.
    pub failure: Option<SyncFailure>,
}

/// All steps of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSyncResult {
    /// In the order in which they were done.
    pub steps: Vec<SyncStep>,
}

impl PodSyncResult {
    /// Adds a step; says whether it succeeded.
    pub fn add(&mut self, action: SyncAction, target: &str, result: Result<(), SyncFailure>) -> bool {
        let failure = result.err();
        let succeeded = failure.is_none();
        self.steps.push(SyncStep { action, target: target.to_owned(), failure });
        succeeded
    }

    /// Adds all steps of another.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
    }

    /// Whether a step failed.
    pub fn failed(&self) -> bool {
        self.steps.iter().any(|s| s.failure.is_some())
    }

    /// All failures as one, with the earliest time to try again if every one of them names one
    /// (`MinBackoffExpiration`).
    pub fn error(&self) -> Option<SyncError> {
        let failures: Vec<(&SyncStep, &SyncFailure)> =
            self.steps.iter().filter_map(|s| s.failure.as_ref().map(|f| (s, f))).collect();
        if failures.is_empty() {
            return None;
        }
        let message = failures
            .iter()
            .map(|(step, f)| format!("{} for {:?}: {}", f.reason, step.target, f.message))
            .collect::<Vec<_>>()
            .join("; ");
        let times: Option<Vec<Timestamp>> = failures.iter().map(|(_, f)| f.retry_at).collect();
        Some(SyncError::Failed { message, retry_at: times.and_then(|t| t.into_iter().min()) })
    }
}
