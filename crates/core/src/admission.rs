//! Whether this node takes a pod (upstream: `pkg/kubelet/lifecycle`). A pod that is not taken fails at once, with the
//! reason by name; nothing that a user asked for is silently left out.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{PodExt, phase};
use crate::ports::Volumes;

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The pod's `status.reason`: one word from upstream's list.
    pub reason: &'static str,
    /// One line: what does not fit, and what to do.
    pub message: String,
}

/// The node lacks something that the pod asks for (`PodFeatureUnsupported`).
const FEATURE_UNSUPPORTED: &str = "PodFeatureUnsupported";
/// The node has as many pods as it may (`OutOfpods`).
const OUT_OF_PODS: &str = "OutOfpods";

/// Decides about pods.
pub struct Admission {
    volumes: Arc<dyn Volumes>,
    max_pods: usize,
}

impl Admission {
    /// At most `max_pods` pods, with volumes that `volumes` can mount.
    pub fn new(volumes: Arc<dyn Volumes>, max_pods: usize) -> Self {
        Self { volumes, max_pods }
    }

    /// Whether a pod is taken beside those that are active.
    pub fn can_admit_pod(&self, active_pods: usize, pod: &Pod) -> Result<(), Rejection> {
        let unsupported = unsupported_feature(pod).map_or(Ok(()), Err).and_then(|()| self.volumes.check(pod));
        unsupported.map_err(|message| Rejection { reason: FEATURE_UNSUPPORTED, message })?;
        if active_pods >= self.max_pods {
            let max = self.max_pods;
            let message = format!(
                "Node didn't have enough resource: pods, requested: 1, used: {active_pods}, capacity: {max}"
            );
            return Err(Rejection { reason: OUT_OF_PODS, message });
        }
        Ok(())
    }
}

/// Whether a pod counts against the node's room: those that ended do not.
pub fn is_active(pod: &Pod, known_terminated: bool) -> bool {
    !known_terminated && !phase::is_terminal(pod.phase())
}

/// The first thing that a pod asks for and this kubelet does not have.
fn unsupported_feature(pod: &Pod) -> Option<String> {
    let spec = pod.pod_spec();
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let pod_level = [
        (on(spec.host_pid), "spec.hostPID"),
        (on(spec.host_ipc), "spec.hostIPC"),
        (on(spec.share_process_namespace), "spec.shareProcessNamespace"),
        (spec.host_users == Some(false), "spec.hostUsers: false"),
        (spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()), "spec.resourceClaims"),
        (spec.active_deadline_seconds.is_some(), "spec.activeDeadlineSeconds"),
    ];
    if let Some((_, field)) = pod_level.iter().find(|(used, _)| *used) {
        return Some(refusal(field));
    }
    let init = pod.init_containers().iter().map(|c| ("initContainers", c));
    let main = pod.containers().iter().map(|c| ("containers", c));
    init.chain(main).find_map(|(list, container)| {
        let field = unsupported_container_field(container)?;
        Some(refusal(&format!("spec.{list}[{}].{field}", container.name)))
    })
}

fn unsupported_container_field(container: &Container) -> Option<&'static str> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let security = container.security_context.as_ref();
    let restarts_all = |c: &Container| {
        c.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers")
    };
    let fields = [
        (container.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()), "lifecycle.stopSignal"),
        (container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), "volumeDevices"),
        (on(container.stdin), "stdin"),
        (on(container.tty), "tty"),
        (restarts_all(container), "restartPolicyRules with action RestartAllContainers"),
        (security.is_some_and(|s| on(s.privileged)), "securityContext.privileged"),
    ];
    fields.iter().find(|(used, _)| *used).map(|(_, field)| *field)
}

fn refusal(field: &str) -> String {
    format!("{field} is not supported by this kubelet; remove it, or run the pod on another node")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_supported_is_named() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "image": "i", "lifecycle": {"stopSignal": "SIGUSR1"}}]}}))
        .unwrap();
        let message = unsupported_feature(&pod).unwrap();
        assert!(message.starts_with("spec.containers[a].lifecycle.stopSignal is not supported"), "{message}");
    }
}
