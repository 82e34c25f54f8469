//! Defaults that the apiserver gives pods and that pods from manifests lack (upstream: `pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe, Volume};

const LATEST: &str = "latest";

/// Fills in what the apiserver would.
pub fn set_pod_defaults(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    let grace_period = spec.termination_grace_period_seconds.unwrap_or(30);
    spec.termination_grace_period_seconds = Some(if grace_period < 0 { 1 } else { grace_period });
    spec.enable_service_links.get_or_insert(true);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        set_container_defaults(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        set_volume_defaults(volume);
    }
    if spec.host_network == Some(true) {
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        for port in containers.flat_map(|c| c.ports.iter_mut().flatten()) {
            port.host_port = port.host_port.filter(|host_port| *host_port != 0).or(Some(port.container_port));
        }
    }
}

fn set_container_defaults(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = if image_tag(image) == LATEST { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    for var in container.env.iter_mut().flatten() {
        if let Some(field) = var.value_from.as_mut().and_then(|v| v.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(set_probe_defaults);
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten();
        hooks.filter_map(|hook| hook.http_get.as_mut()).for_each(set_http_get_defaults);
    }
}

fn set_probe_defaults(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(http) = &mut probe.http_get {
        set_http_get_defaults(http);
    }
}

fn set_http_get_defaults(http: &mut HTTPGetAction) {
    http.path.get_or_insert_with(|| "/".to_owned());
    http.scheme.get_or_insert_with(|| "HTTP".to_owned());
}

fn set_volume_defaults(volume: &mut Volume) {
    const FILE_MODE: i32 = 0o644;
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for token in source.sources.iter_mut().flatten().filter_map(|s| s.service_account_token.as_mut()) {
            token.expiration_seconds.get_or_insert(3600);
        }
    }
}

/// The tag of a reference; `latest` if it has neither tag nor digest, nothing if it has a digest only.
fn image_tag(image: &str) -> &str {
    if image.contains('@') {
        return "";
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or(LATEST, |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_pod_on_the_nodes_network_are_the_nodes() {
        let ports = |host_network: bool| {
            let pod = serde_json::json!({"spec": {"hostNetwork": host_network, "containers": [
                {"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 0}]}]}});
            let mut pod: Pod = serde_json::from_value(pod).unwrap();
            set_pod_defaults(&mut pod);
            let ports = pod.spec.unwrap().containers[0].ports.clone().unwrap();
            ports.iter().map(|port| port.host_port.unwrap_or(0)).collect::<Vec<_>>()
        };
        assert_eq!(ports(true), [80, 81]);
        assert_eq!(ports(false), [0, 0]);
    }

    #[test]
    fn only_latest_is_pulled_always() {
        let cases = [
            ("a", "Always"),
            ("localhost:5000/a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("a@sha256:00", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            let mut container = Container { image: Some(image.into()), ..Container::default() };
            set_container_defaults(&mut container);
            assert_eq!(container.image_pull_policy.as_deref(), Some(policy), "{image}");
        }
    }
}
