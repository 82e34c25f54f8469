//! What a pod may ask for and this kubelet does not have.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::Rejection;
use crate::pod::PodExt;

/// The node lacks something that the pod asks for (`PodFeatureUnsupported`).
const FEATURE_UNSUPPORTED: &str = "PodFeatureUnsupported";

/// Refuses the first thing that is not there, by name.
pub(super) fn check(pod: &Pod) -> Result<(), Rejection> {
    unsupported_feature(pod).map_or(Ok(()), |message| Err(rejection(message)))
}

/// A refusal for want of a feature.
pub(super) fn rejection(message: String) -> Rejection {
    Rejection { reason: Cow::Borrowed(FEATURE_UNSUPPORTED), message }
}

fn unsupported_feature(pod: &Pod) -> Option<String> {
    let spec = pod.pod_spec();
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let pod_level = [
        (on(spec.host_pid), "spec.hostPID"),
        (on(spec.host_ipc), "spec.hostIPC"),
        (on(spec.share_process_namespace), "spec.shareProcessNamespace"),
        (spec.host_users == Some(false), "spec.hostUsers: false"),
        (spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()), "spec.resourceClaims"),
        (
            pod.pod_status().extended_resource_claim_status.is_some(),
            "a device of a DRA driver, by resource name,",
        ),
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
    let fields = [
        (container.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()), "lifecycle.stopSignal"),
        (container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), "volumeDevices"),
        (container.ports.iter().flatten().any(is_sctp_host_port), "ports with a hostPort for SCTP"),
        (security.is_some_and(|s| on(s.privileged)), "securityContext.privileged"),
    ];
    fields.iter().find(|(used, _)| *used).map(|(_, field)| *field)
}

fn is_sctp_host_port(port: &ContainerPort) -> bool {
    port.protocol.as_deref() == Some("SCTP") && port.host_port.is_some_and(|number| number != 0)
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
