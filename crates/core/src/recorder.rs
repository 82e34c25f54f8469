//! Recording Events with upstream's reasons (`pkg/kubelet/events/event.go`).

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::pod::{PodExt, container_reference};
use crate::ports::{EventRecord, EventSink, EventType};

/// Reasons of Events, as upstream spells them.
pub mod reason {
    /// A container was made.
    pub const CREATED_CONTAINER: &str = "Created";
    /// A container was started.
    pub const STARTED_CONTAINER: &str = "Started";
    /// A container could not be made or started, or an image not be had.
    pub const FAILED: &str = "Failed";
    /// A container is being stopped.
    pub const KILLING_CONTAINER: &str = "Killing";
    /// The node ends a pod to save itself.
    pub const EVICTED: &str = "Evicted";
    /// A pod has to make room for a critical one.
    pub const PREEMPT_CONTAINER: &str = "Preempting";
    /// A pod has not stopped in time.
    pub const EXCEEDED_GRACE_PERIOD: &str = "ExceededGracePeriod";
    /// A container or an image has to wait after failures.
    pub const BACK_OFF: &str = "BackOff";
    /// A pod could not be stopped.
    pub const FAILED_KILL_POD: &str = "FailedKillPod";
    /// The provider has no network for the pod yet.
    pub const NETWORK_NOT_READY: &str = "NetworkNotReady";
    /// An image is being fetched.
    pub const PULLING_IMAGE: &str = "Pulling";
    /// An image is present.
    pub const PULLED_IMAGE: &str = "Pulled";
    /// An image reference does not parse.
    pub const FAILED_TO_INSPECT_IMAGE: &str = "InspectFailed";
    /// An image is absent and must not be fetched.
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    /// Pull secrets are missing.
    pub const FAILED_TO_RETRIEVE_IMAGE_PULL_SECRET: &str = "FailedToRetrieveImagePullSecret";
    /// A volume is not there.
    pub const FAILED_MOUNT_VOLUME: &str = "FailedMount";
    /// Some of what a pod's names are to be looked up with is left out.
    pub const DNS_CONFIG_FORMING: &str = "DNSConfigForming";
    /// The node's own resolver configuration has more than pods can have.
    pub const CHECK_LIMITS_FOR_RESOLV_CONF: &str = "CheckLimitsForResolvConf";
    /// The node does not know where the cluster's names are looked up.
    pub const MISSING_CLUSTER_DNS: &str = "MissingClusterDNS";
    /// A sandbox is replaced.
    pub const SANDBOX_CHANGED: &str = "SandboxChanged";
    /// A sandbox could not be made.
    pub const FAILED_CREATE_POD_SANDBOX: &str = "FailedCreatePodSandBox";
    /// What the runtime has of a pod could not be found out.
    pub const FAILED_SYNC: &str = "FailedSync";
    /// The kubelet has started.
    pub const STARTING_KUBELET: &str = "Starting";
    /// A probe failed, or could not be made.
    pub const CONTAINER_UNHEALTHY: &str = "Unhealthy";
    /// A probe succeeded in a way that somebody should look at.
    pub const CONTAINER_PROBE_WARNING: &str = "ProbeWarning";
    /// A hook failed after a container had started.
    pub const FAILED_POST_START_HOOK: &str = "FailedPostStartHook";
    /// A hook failed before a container was to stop.
    pub const FAILED_PRE_STOP_HOOK: &str = "FailedPreStopHook";
    /// A hook asked for HTTPS, and worked with HTTP.
    pub const LIFECYCLE_HTTP_FALLBACK: &str = "LifecycleHTTPFallback";
    /// A pod is resized as soon as there is room.
    pub const RESIZE_DEFERRED: &str = "ResizeDeferred";
    /// A pod cannot be resized on this node.
    pub const RESIZE_INFEASIBLE: &str = "ResizeInfeasible";
    /// The node has given a pod what it asked for.
    pub const RESIZE_STARTED: &str = "ResizeStarted";
    /// A pod has what it asked for.
    pub const RESIZE_COMPLETED: &str = "ResizeCompleted";
    /// The runtime did not give a pod what the node gave it.
    pub const RESIZE_ERROR: &str = "ResizeError";
    /// A pod has been active for longer than it may be.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// Unused images could not be removed, twice in a row.
    pub const IMAGE_GC_FAILED: &str = "ImageGCFailed";
    /// The disk of images is too full, and too little of it is unused.
    pub const FREE_DISK_SPACE_FAILED: &str = "FreeDiskSpaceFailed";
    /// The disk of images has no size.
    pub const INVALID_DISK_CAPACITY: &str = "InvalidDiskCapacity";
    /// The node runs out of something.
    pub const EVICTION_THRESHOLD_MET: &str = "EvictionThresholdMet";
    /// A pod has no control group.
    pub const FAILED_TO_CREATE_POD_CONTAINER: &str = "FailedToCreatePodContainer";
    /// All pods together are held to what is for them.
    pub const SUCCESSFUL_NODE_ALLOCATABLE_ENFORCEMENT: &str = "NodeAllocatableEnforced";
    /// They are not.
    pub const FAILED_NODE_ALLOCATABLE_ENFORCEMENT: &str = "FailedNodeAllocatableEnforcement";
    /// A pod has the name of another one of its source.
    pub const FAILED_VALIDATION: &str = "FailedValidation";
}

/// Records Events about pods and their containers.
#[derive(Clone)]
pub struct Recorder {
    sink: Arc<dyn EventSink>,
}

impl Recorder {
    /// Records into `sink`.
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self { sink }
    }

    /// Something good happened to a pod.
    pub fn normal(&self, pod: &Pod, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.event(pod.object_reference(), EventType::Normal, reason, message);
    }

    /// Something bad happened to a pod.
    pub fn warning(&self, pod: &Pod, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.event(pod.object_reference(), EventType::Warning, reason, message);
    }

    /// Something happened to a container.
    pub fn container(
        &self,
        pod: &Pod,
        container: &str,
        event_type: EventType,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.event(container_reference(pod, container), event_type, reason, message);
    }

    /// Something happened to any object.
    pub fn event(
        &self,
        object: ObjectReference,
        event_type: EventType,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.sink.record(EventRecord { object, event_type, reason: reason.into(), message: message.into() });
    }
}
