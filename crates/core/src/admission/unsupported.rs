//! What a pod may ask for and this kubelet does not have.

use std::borrow::Cow;

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::Rejection;
use crate::pod::PodExt;

/// The node lacks something that the pod asks for (`PodFeatureUnsupported`).
const FEATURE_UNSUPPORTED: &str = "PodFeatureUnsupported";

/// Refuses the first thing that is not there, by name.
pub(super) fn check(pod: &Pod, runs: Option<ArtifactKind>) -> Result<(), Rejection> {
    unsupported_feature(pod, runs).map_or(Ok(()), |message| Err(rejection(message)))
}

/// A refusal for want of a feature.
pub(super) fn rejection(message: String) -> Rejection {
    Rejection { reason: Cow::Borrowed(FEATURE_UNSUPPORTED), message }
}

fn unsupported_feature(pod: &Pod, runs: Option<ArtifactKind>) -> Option<String> {
    let spec = pod.pod_spec();
    let is_wasm = runs == Some(ArtifactKind::Wasm);
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let pod_level = [
        (is_wasm && on(spec.host_pid), "spec.hostPID"),
        (is_wasm && on(spec.host_ipc), "spec.hostIPC"),
        (is_wasm && on(spec.share_process_namespace), "spec.shareProcessNamespace"),
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
        let field = unsupported_container_field(container, is_wasm)?;
        Some(refusal(&format!("spec.{list}[{}].{field}", container.name)))
    })
}

fn unsupported_container_field(container: &Container, is_wasm: bool) -> Option<&'static str> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let security = container.security_context.as_ref();
    let fields = [
        (container.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()), "lifecycle.stopSignal"),
        (container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), "volumeDevices"),
        (
            is_wasm && container.ports.iter().flatten().any(is_sctp_host_port),
            "ports with a hostPort for SCTP",
        ),
        (is_wasm && security.is_some_and(|s| on(s.privileged)), "securityContext.privileged"),
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
        let message = unsupported_feature(&pod, None).unwrap();
        assert!(message.starts_with("spec.containers[a].lifecycle.stopSignal is not supported"), "{message}");
    }

    /// What one kind of runtime has, the other may lack.
    #[test]
    fn what_a_runtime_lacks_is_refused_there_alone() {
        let refused = |spec: serde_json::Value, runs| {
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
            unsupported_feature(&pod, Some(runs)).is_some()
        };
        let privileged = json!([{ "name": "c", "image": "i", "securityContext": { "privileged": true } }]);
        let plain = json!([{ "name": "c", "image": "i" }]);
        let aliases = json!([{ "ip": "10.0.0.1", "hostnames": ["a"] }]);
        let cases = [
            (json!({ "containers": plain, "hostPID": true }), true, false),
            (json!({ "containers": plain, "hostIPC": true }), true, false),
            (json!({ "containers": plain, "shareProcessNamespace": true }), true, false),
            (json!({ "containers": privileged }), true, false),
            (json!({ "containers": plain, "hostAliases": aliases }), false, false),
            (json!({ "containers": plain, "hostUsers": false }), true, true),
            (json!({ "containers": plain }), false, false),
        ];
        for (spec, by_wasm, by_linux) in cases {
            assert_eq!(refused(spec.clone(), ArtifactKind::Wasm), by_wasm, "{spec}");
            assert_eq!(refused(spec.clone(), ArtifactKind::RootFs), by_linux, "{spec}");
        }
    }
}
