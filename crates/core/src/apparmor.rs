//! The AppArmor profile of a container (upstream: `pkg/security/apparmor/helpers.go`).

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use crate::pod::PodExt;

/// Annotations that name a container's profile, before there was a field for it; static pods may still have them.
pub(crate) const ANNOTATION_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The container's own, else that of an annotation, else the pod's (`GetProfile`).
pub(crate) fn profile(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.clone());
    let of_pod = pod.pod_spec().security_context.as_ref().and_then(|of_pod| of_pod.app_armor_profile.clone());
    own.or_else(|| of_annotation(pod, &container.name)).or(of_pod)
}

fn of_annotation(pod: &Pod, container: &str) -> Option<AppArmorProfile> {
    let text = pod.metadata.annotations.as_ref()?.get(&format!("{ANNOTATION_PREFIX}{container}"))?;
    let (type_, localhost_profile) = match text.as_str() {
        "runtime/default" => ("RuntimeDefault", None),
        "unconfined" => ("Unconfined", None),
        other => ("Localhost", Some(other.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `TestGetProfile`.
    #[test]
    fn the_nearest_profile_holds() {
        let of = |own: serde_json::Value, annotation: Option<&str>, of_pod: serde_json::Value| {
            let annotations = annotation.map(|text| json!({ format!("{ANNOTATION_PREFIX}c"): text }));
            let container = json!({ "name": "c", "securityContext": { "appArmorProfile": own } });
            let pod = json!({ "metadata": { "annotations": annotations },
                "spec": { "containers": [container], "securityContext": { "appArmorProfile": of_pod } } });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            profile(&pod, &pod.containers()[0]).map(|it| (it.type_, it.localhost_profile.unwrap_or_default()))
        };
        let kind = |kind: &str| json!({ "type": kind });
        let found = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
        assert_eq!(of(json!(null), None, json!(null)), None);
        assert_eq!(of(json!(null), None, kind("RuntimeDefault")), found("RuntimeDefault", ""));
        assert_eq!(of(json!(null), Some("localhost/p"), kind("RuntimeDefault")), found("Localhost", "p"));
        assert_eq!(of(kind("Unconfined"), Some("runtime/default"), json!(null)), found("Unconfined", ""));
        assert_eq!(of(json!(null), Some("nonsense"), json!(null)), None);
    }
}
