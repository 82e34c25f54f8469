//! What the pipeline keeps asking of a Pod object.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use coracle_provider::PodRef;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, ObjectReference, Pod, PodSpec, PodStatus};

use crate::ports::SourceKind;

/// The annotation that names a pod's source (`pkg/kubelet/types/pod_update.go`).
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The annotation with the hash of a static pod's manifest; its UID is made from it.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// The annotation that says when this agent first saw the pod.
pub const CONFIG_FIRST_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// The annotation of the API object that mirrors a static pod: the hash of that pod's manifest.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// `metadata.uid`: the key of everything in the pipeline. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PodUid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

impl Deref for PodUid {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for PodUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Phases of a pod (`core/v1` `PodPhase`).
pub mod phase {
    /// Accepted, not all containers started.
    pub const PENDING: &str = "Pending";
    /// At least one container runs, or is being restarted.
    pub const RUNNING: &str = "Running";
    /// All containers ended with 0 and none will be restarted.
    pub const SUCCEEDED: &str = "Succeeded";
    /// All containers ended, one of them not with 0, and none will be restarted.
    pub const FAILED: &str = "Failed";

    /// Whether a pod of this phase never runs again.
    pub fn is_terminal(phase: &str) -> bool {
        phase == SUCCEEDED || phase == FAILED
    }
}

/// Restart policies of pods and containers.
pub mod restart_policy {
    /// Restart whatever ends.
    pub const ALWAYS: &str = "Always";
    /// Restart what fails.
    pub const ON_FAILURE: &str = "OnFailure";
    /// Restart nothing.
    pub const NEVER: &str = "Never";
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// Shorthands on [`Pod`]; an absent spec or status counts as an empty one.
pub trait PodExt {
    /// `metadata.uid`.
    fn uid(&self) -> PodUid;
    /// `metadata.namespace`.
    fn namespace(&self) -> &str;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `name_namespace`, as upstream's `GetPodFullName`.
    fn full_name(&self) -> String;
    /// `namespace/name`, for people.
    fn display_name(&self) -> String;
    /// The spec.
    fn pod_spec(&self) -> &PodSpec;
    /// The status.
    fn pod_status(&self) -> &PodStatus;
    /// `status.phase`, or nothing.
    fn phase(&self) -> &str;
    /// An annotation.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// Whether it comes from a file or a URL and not from the apiserver.
    fn is_static(&self) -> bool;
    /// Whether it is the API object of a static pod.
    fn is_mirror(&self) -> bool;
    /// Whether it has been deleted and waits for its end.
    fn is_deleting(&self) -> bool;
    /// Whether it uses the node's network.
    fn is_host_network(&self) -> bool;
    /// `spec.restartPolicy`, `Always` if unset.
    fn restart_policy(&self) -> &str;
    /// Init containers.
    fn init_containers(&self) -> &[Container];
    /// Main containers.
    fn containers(&self) -> &[Container];
    /// Init, main and ephemeral containers, the latter in the shape of a [`Container`].
    fn all_containers(&self) -> Vec<Container>;
    /// The pod as providers name it.
    fn pod_ref(&self) -> PodRef;
    /// The pod as Events name it.
    fn object_reference(&self) -> ObjectReference;
}

impl PodExt for Pod {
    fn uid(&self) -> PodUid {
        PodUid::from(self.metadata.uid.as_deref().unwrap_or_default())
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn full_name(&self) -> String {
        format!("{}_{}", self.name(), self.namespace())
    }

    fn display_name(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    fn pod_spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn pod_status(&self) -> &PodStatus {
        self.status.as_ref().unwrap_or(&NO_STATUS)
    }

    fn phase(&self) -> &str {
        self.pod_status().phase.as_deref().unwrap_or_default()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE_ANNOTATION).is_some_and(|s| s != SourceKind::Api.as_str())
    }

    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR_ANNOTATION).is_some()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_host_network(&self) -> bool {
        self.pod_spec().host_network.unwrap_or(false)
    }

    fn restart_policy(&self) -> &str {
        self.pod_spec().restart_policy.as_deref().unwrap_or(restart_policy::ALWAYS)
    }

    fn init_containers(&self) -> &[Container] {
        self.pod_spec().init_containers.as_deref().unwrap_or_default()
    }

    fn containers(&self) -> &[Container] {
        &self.pod_spec().containers
    }

    fn all_containers(&self) -> Vec<Container> {
        self.init_containers()
            .iter()
            .chain(self.containers())
            .cloned()
            .chain(ephemeral_containers(self))
            .collect()
    }

    fn pod_ref(&self) -> PodRef {
        PodRef {
            uid: self.uid().to_string(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    fn object_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            resource_version: self.metadata.resource_version.clone(),
            field_path: None,
        }
    }
}

/// Ephemeral containers as ordinary ones (`EphemeralContainerCommon` has the same fields).
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    pod.pod_spec().ephemeral_containers.iter().flatten().map(as_container).collect()
}

fn as_container(ephemeral: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// Whether an init container is a sidecar (`podutil.IsRestartableInitContainer`).
pub fn is_restartable_init_container(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some(restart_policy::ALWAYS)
}

/// The status of a container by name.
pub fn container_status<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

/// The Event reference of one container: the pod with a field path (`kubecontainer.GenerateContainerRef`).
pub fn container_reference(pod: &Pod, name: &str) -> ObjectReference {
    let group = if pod.init_containers().iter().any(|c| c.name == name) {
        "initContainers"
    } else if pod.containers().iter().any(|c| c.name == name) {
        "containers"
    } else {
        "ephemeralContainers"
    };
    ObjectReference { field_path: Some(format!("spec.{group}{{{name}}}")), ..pod.object_reference() }
}
