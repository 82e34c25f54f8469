//! Whether this node takes a pod (upstream: `pkg/kubelet/lifecycle`). A pod that is not taken fails at once, with the
//! reason by name; nothing that a user asked for is silently left out.

mod node_affinity;
mod node_info;
mod predicates;
mod security;
mod tolerations;
mod unsupported;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::ports::Volumes;
pub(crate) use tolerations::tolerates;

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The pod's `status.reason`: one word from upstream's list.
    pub reason: Cow<'static, str>,
    /// One line: what does not fit, and what to do.
    pub message: String,
}

impl Rejection {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason: Cow::Borrowed(reason), message: message.into() }
    }
}

/// What a pod is judged by (`PodAdmitAttributes`).
#[derive(Clone, Copy)]
pub struct PodAdmitAttributes<'a> {
    /// The pod, with what was allocated to it if anything was.
    pub pod: &'a Pod,
    /// The pods that were admitted and have not ended, with what was allocated to them.
    pub other_pods: &'a [Arc<Pod>],
    /// This node; none without a cluster, where nothing is asked of labels, taints and resources.
    pub node: Option<&'a Node>,
    /// What its runtime runs; none if that is not known, or the pod was let in before.
    pub runs: Option<ArtifactKind>,
}

/// Why a pod does not fit. What is only about room, a critical pod may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PredicateFailure {
    /// The node has not enough of something (`InsufficientResourceError`).
    InsufficientResource {
        /// Of what.
        resource: String,
        /// What the pod asks for; processors in thousandths.
        requested: i64,
        /// What others have.
        used: i64,
        /// What there is.
        capacity: i64,
    },
    /// Something else does not fit (`PredicateFailureError`).
    Predicate {
        /// The scheduler's name for what looks at this.
        name: &'static str,
        /// What does not fit.
        description: &'static str,
    },
}

impl PredicateFailure {
    /// Whether the labels of the node do not match: then the node may have changed a moment ago.
    pub fn is_about_node_labels(&self) -> bool {
        matches!(self, Self::Predicate { name: predicates::NODE_AFFINITY, .. })
    }
}

impl fmt::Display for PredicateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InsufficientResource { resource, requested, used, capacity } => write!(
                f,
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
                 capacity: {capacity}"
            ),
            Self::Predicate { name, description } => write!(f, "Predicate {name} failed: {description}"),
        }
    }
}

impl From<&PredicateFailure> for Rejection {
    fn from(failure: &PredicateFailure) -> Self {
        let reason = match failure {
            PredicateFailure::InsufficientResource { resource, .. } => Cow::Owned(format!("OutOf{resource}")),
            PredicateFailure::Predicate { name, .. } => Cow::Borrowed(*name),
        };
        Self { reason, message: failure.to_string() }
    }
}

/// Why a pod is not admitted as things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Nothing will change that.
    Rejected(Rejection),
    /// It does not fit beside the others, or on this node; at least one failure.
    DoesNotFit(Vec<PredicateFailure>),
}

/// Decides about pods (`PodAdmitHandlers`).
pub struct Admission {
    volumes: Arc<dyn Volumes>,
    max_pods: usize,
    has_apparmor: bool,
}

impl Admission {
    /// With volumes that `volumes` can mount. `max_pods` counts as long as no Node says how many there may be.
    pub fn new(volumes: Arc<dyn Volumes>, max_pods: usize) -> Self {
        Self { volumes, max_pods, has_apparmor: false }
    }

    /// The kernel enforces AppArmor profiles, or does not.
    pub fn with_apparmor(self, has_apparmor: bool) -> Self {
        Self { has_apparmor, ..self }
    }

    /// Whether a pod asks for nothing that this kubelet cannot do, whatever else is on the node.
    fn check_features(&self, pod: &Pod, runs: Option<ArtifactKind>) -> Result<(), Rejection> {
        unsupported::check(pod, runs)?;
        self.volumes.check(pod).map_err(unsupported::rejection)?;
        security::check(pod, runs, self.has_apparmor)
    }

    /// Whether a pod is taken (`canAdmitPod`).
    pub fn can_admit_pod(&self, attributes: &PodAdmitAttributes<'_>) -> Result<(), NotAdmitted> {
        self.check_features(attributes.pod, attributes.runs).map_err(NotAdmitted::Rejected)?;
        predicates::check_node(attributes).map_err(NotAdmitted::Rejected)?;
        let failures = predicates::general_filter(attributes, self.max_pods);
        if failures.is_empty() { Ok(()) } else { Err(NotAdmitted::DoesNotFit(failures)) }
    }
}

#[cfg(test)]
mod tests;
