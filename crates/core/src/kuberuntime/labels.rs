//! Labels and annotations of sandboxes and containers, upstream's to the letter, so that `crictl` and a Go kubelet
//! recognise them (`pkg/kubelet/kuberuntime/labels.go`, `container/helpers.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::runtime_pod::RuntimeContainer;
use crate::go_format;
use crate::pod::PodExt;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const CONTAINER_TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const CONTAINER_TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const CONTAINER_PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
const POD_DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a sandbox: the pod's own, and who it is.
pub(super) fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub(super) fn container_labels(container: &Container, pod: &Pod) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = identity(pod).into_iter().collect();
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), pod.name().to_owned()),
        (POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (POD_UID.to_owned(), pod.uid().to_string()),
    ]
}

/// Annotations of a container: what is needed to judge and to stop it when the pod's spec is no longer known.
pub(super) fn container_annotations(
    container: &Container,
    pod: &Pod,
    restart_count: u32,
) -> BTreeMap<String, String> {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    let mut annotations = BTreeMap::from([
        (CONTAINER_HASH.to_owned(), format!("{:x}", hash_container(container))),
        (CONTAINER_RESTART_COUNT.to_owned(), restart_count.to_string()),
        (CONTAINER_TERMINATION_MESSAGE_PATH.to_owned(), text(&container.termination_message_path)),
        (CONTAINER_TERMINATION_MESSAGE_POLICY.to_owned(), text(&container.termination_message_policy)),
    ]);
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(POD_DELETION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = pod.pod_spec().termination_grace_period_seconds {
        annotations.insert(POD_TERMINATION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(json) = pre_stop.and_then(|handler| serde_json::to_string(handler).ok()) {
        annotations.insert(CONTAINER_PRE_STOP_HANDLER.to_owned(), json);
    }
    if let Some(json) =
        container.ports.as_ref().filter(|p| !p.is_empty()).and_then(|p| serde_json::to_string(p).ok())
    {
        annotations.insert(CONTAINER_PORTS.to_owned(), json);
    }
    annotations
}

/// What a container's annotations say of it and its pod: enough to stop it (`restoreSpecsFromContainerLabels`).
pub(super) fn restore_specs(container: &RuntimeContainer) -> (Pod, Container) {
    let annotations = &container.status.annotations;
    let seconds = |key: &str| annotations.get(key).and_then(|v| v.parse().ok());
    let metadata = ObjectMeta {
        uid: Some(container.pod.uid.clone()),
        name: Some(container.pod.name.clone()),
        namespace: Some(container.pod.namespace.clone()),
        deletion_grace_period_seconds: seconds(POD_DELETION_GRACE_PERIOD),
        ..ObjectMeta::default()
    };
    let pre_stop = from_json(annotations, CONTAINER_PRE_STOP_HANDLER);
    let restored = Container {
        name: container.name.clone(),
        ports: from_json(annotations, CONTAINER_PORTS),
        lifecycle: pre_stop.map(|hook| Lifecycle { pre_stop: Some(hook), ..Lifecycle::default() }),
        ..Container::default()
    };
    let spec = PodSpec {
        containers: vec![restored.clone()],
        termination_grace_period_seconds: seconds(POD_TERMINATION_GRACE_PERIOD),
        ..PodSpec::default()
    };
    (Pod { metadata, spec: Some(spec), ..Pod::default() }, restored)
}

fn from_json<T: DeserializeOwned>(annotations: &BTreeMap<String, String>, key: &str) -> Option<T> {
    serde_json::from_str(annotations.get(key)?).ok()
}

/// The hash that a container was made with.
pub(super) fn container_hash_annotation(annotations: &BTreeMap<String, String>) -> Option<u32> {
    u32::from_str_radix(annotations.get(CONTAINER_HASH)?, 16).ok()
}

/// Where a container was to leave a message; empty for nowhere.
pub(super) fn termination_message_path_annotation(annotations: &BTreeMap<String, String>) -> &str {
    annotations.get(CONTAINER_TERMINATION_MESSAGE_PATH).map_or("", String::as_str)
}

/// Where its message comes from.
pub(super) fn termination_message_policy_annotation(annotations: &BTreeMap<String, String>) -> &str {
    annotations.get(CONTAINER_TERMINATION_MESSAGE_POLICY).map_or("", String::as_str)
}

/// The restart count that a container was made with.
pub(super) fn restart_count_annotation(annotations: &BTreeMap<String, String>) -> Option<u32> {
    annotations.get(CONTAINER_RESTART_COUNT)?.parse().ok()
}

/// Upstream's container hash: of the JSON of name and image, byte for byte. Hashing more than these two would restart
/// containers on every in-place change.
pub fn hash_container(container: &Container) -> u32 {
    let hashed = json!({"image": container.image.as_deref().unwrap_or_default(), "name": container.name});
    // An object of two strings always has a JSON form.
    go_format::hash_bytes(go_format::json(&hashed).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by upstream's `kubecontainer.HashContainer`.
    #[test]
    fn the_container_hash_is_upstreams() {
        let cases = [
            ("a", "b", 1_685_057_307),
            ("main", "registry.k8s.io/e2e-test-images/agnhost:2.55", 4_025_124_160),
            ("hello", "./hello.wasm", 2_276_175_981),
            ("x<>&", "ü\"\\\u{2028}", 2_747_698_840),
        ];
        for (name, image, expected) in cases {
            let container =
                Container { name: name.into(), image: Some(image.into()), ..Container::default() };
            assert_eq!(hash_container(&container), expected, "{name} {image}");
            let annotations = container_annotations(&container, &Pod::default(), 3);
            assert_eq!(container_hash_annotation(&annotations), Some(expected));
            assert_eq!(restart_count_annotation(&annotations), Some(3));
        }
    }
}
