//! Rules that the apiserver holds pods to and that pods from manifests have to be held to here
//! (upstream: `pkg/apis/core/validation`, the part that the kubelet relies on).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{PodExt, restart_policy};

/// The first rule that a pod breaks, with the field's path.
pub fn validate_pod(pod: &Pod) -> Result<(), String> {
    check(is_dns_subdomain(pod.name()), "metadata.name", || {
        format!("{:?} is not a lower-case DNS name", pod.name())
    })?;
    check(is_dns_label(pod.namespace()), "metadata.namespace", || {
        format!("{:?} is not a lower-case DNS label", pod.namespace())
    })?;
    let spec = pod.spec.as_ref().ok_or("spec: required")?;
    let policies = [restart_policy::ALWAYS, restart_policy::ON_FAILURE, restart_policy::NEVER];
    check(policies.contains(&pod.restart_policy()), "spec.restartPolicy", || {
        format!("{:?} is not one of {}", pod.restart_policy(), policies.join(", "))
    })?;
    check(
        spec.termination_grace_period_seconds.is_none_or(|s| s >= 0),
        "spec.terminationGracePeriodSeconds",
        || "must not be negative".to_owned(),
    )?;
    check(!spec.containers.is_empty(), "spec.containers", || {
        "at least one container is required".to_owned()
    })?;
    check(spec.ephemeral_containers.as_ref().is_none_or(Vec::is_empty), "spec.ephemeralContainers", || {
        "cannot be set when a pod is created".to_owned()
    })?;

    let volumes: Vec<&str> = spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    unique(&volumes, "spec.volumes")?;
    for name in &volumes {
        check(is_dns_label(name), "spec.volumes", || format!("{name:?} is not a lower-case DNS label"))?;
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let names: Vec<&str> = spec.containers.iter().chain(init).map(|c| c.name.as_str()).collect();
    unique(&names, "spec.containers")?;
    for (field, containers) in [("spec.initContainers", init), ("spec.containers", &spec.containers)] {
        for (i, container) in containers.iter().enumerate() {
            validate_container(container, &volumes).map_err(|e| format!("{field}[{i}].{e}"))?;
        }
    }
    unique_host_ports(pod)
}

fn validate_container(container: &Container, volumes: &[&str]) -> Result<(), String> {
    check(is_dns_label(&container.name), "name", || {
        format!("{:?} is not a lower-case DNS label", container.name)
    })?;
    let image = container.image.as_deref().unwrap_or_default();
    check(!image.is_empty() && image.trim() == image, "image", || {
        "required, without spaces around it".to_owned()
    })?;
    let policy = container.image_pull_policy.as_deref().unwrap_or("Always");
    check(["Always", "IfNotPresent", "Never"].contains(&policy), "imagePullPolicy", || {
        format!("{policy:?} is not one of Always, IfNotPresent, Never")
    })?;
    for var in container.env.iter().flatten() {
        let ok = !var.name.is_empty() && !var.name.contains(['=', '\0']);
        check(ok, "env", || format!("{:?} is not a variable name", var.name))?;
        check(
            var.value.as_deref().unwrap_or_default().is_empty() || var.value_from.is_none(),
            "env",
            || format!("{:?} has both value and valueFrom", var.name),
        )?;
    }
    for port in container.ports.iter().flatten() {
        let numbers = [Some(port.container_port), port.host_port.filter(|p| *p != 0)];
        let ok = numbers.into_iter().flatten().all(|p| (1..=65535).contains(&p));
        check(ok, "ports", || "port numbers are between 1 and 65535".to_owned())?;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        check(["TCP", "UDP", "SCTP"].contains(&protocol), "ports", || {
            format!("unknown protocol {protocol:?}")
        })?;
    }
    let mut paths = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        check(volumes.contains(&mount.name.as_str()), "volumeMounts", || {
            format!("volume {:?} is not in spec.volumes", mount.name)
        })?;
        check(!mount.mount_path.is_empty(), "volumeMounts", || format!("{:?} has no mountPath", mount.name))?;
        paths.push(mount.mount_path.as_str());
    }
    unique(&paths, "volumeMounts.mountPath")
}

fn unique_host_ports(pod: &Pod) -> Result<(), String> {
    let mut seen = HashSet::new();
    for port in pod.containers().iter().flat_map(|c| c.ports.iter().flatten()) {
        let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
        let key = (number, port.protocol.clone(), port.host_ip.clone());
        check(seen.insert(key), "spec.containers.ports", || format!("Duplicate value: hostPort {number}"))?;
    }
    Ok(())
}

fn unique(names: &[&str], field: &str) -> Result<(), String> {
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(**name)) {
        Some(name) => Err(format!("{field}: Duplicate value: {name:?}")),
        None => Ok(()),
    }
}

fn check(ok: bool, field: &str, message: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(format!("{field}: {}", message())) }
}

/// RFC 1123 label.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// RFC 1123 subdomain: its labels may be longer, as in upstream's expression.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

fn is_dns_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(patch: serde_json::Value) -> String {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "default"},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        merge(&mut pod, patch);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        validate_pod(&pod).err().unwrap_or_default()
    }

    fn merge(into: &mut serde_json::Value, patch: serde_json::Value) {
        match (into, patch) {
            (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, patch) => *into = patch,
        }
    }

    #[test]
    fn rules_name_the_field() {
        assert_eq!(error(json!({})), "");
        let twice =
            json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}});
        assert_eq!(error(twice), "spec.containers: Duplicate value: \"a\"");
        let cases = [
            (json!({"metadata": {"name": "A_b"}}), "metadata.name"),
            (json!({"spec": {"restartPolicy": "Sometimes"}}), "spec.restartPolicy"),
            (json!({"spec": {"containers": []}}), "spec.containers"),
            (
                json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}),
                "spec.ephemeralContainers",
            ),
            (json!({"spec": {"containers": [{"name": "a"}]}}), "spec.containers[0].image"),
            (
                json!({"spec": {"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}),
                "spec.containers[0].volumeMounts",
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 0}]}]}}),
                "spec.containers[0].ports",
            ),
        ];
        for (patch, field) in cases {
            let error = error(patch);
            assert!(error.starts_with(field), "{error} should be about {field}");
        }
    }
}
