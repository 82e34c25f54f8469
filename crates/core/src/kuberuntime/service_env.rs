//! What containers are told of Services in their environment (upstream: `getServiceEnvVarMap`, `envvars.FromServices`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};

use super::manager::KubeGenericRuntimeManager;
use crate::pod::PodExt;
use crate::ports::ApiError;

/// The Service of the apiserver itself: every container is told of it.
const MASTER_SERVICE: (&str, &str) = ("default", "kubernetes");

impl KubeGenericRuntimeManager {
    /// The variables for the Services that a pod may want: those of its namespace, unless it wants none, and the
    /// apiserver's.
    pub(super) async fn service_env(&self, pod: &Pod) -> Result<BTreeMap<String, String>, ApiError> {
        let (master_namespace, master) = MASTER_SERVICE;
        let mut env = BTreeMap::new();
        for service in self.objects.services(master_namespace).await? {
            if service.metadata.name.as_deref() == Some(master) {
                add_service(&service, &mut env);
            }
        }
        if pod.pod_spec().enable_service_links.unwrap_or(true) {
            for service in self.objects.services(pod.namespace()).await? {
                add_service(&service, &mut env);
            }
        }
        Ok(env)
    }
}

/// The variables of one Service; none if it has no address of its own.
fn add_service(service: &Service, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    if address.is_empty() || address == "None" {
        return;
    }
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    env.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    env.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.insert(format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
    }
    add_links(&name, address, spec, env);
}

/// The variables that Docker links had (`makeLinkVariables`).
fn add_links(name: &str, address: &str, spec: &ServiceSpec, env: &mut BTreeMap<String, String>) {
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let host = match address.parse() {
            Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
            _ => address.to_owned(),
        };
        let url = format!("{lower}://{host}:{}", port.port);
        if i == 0 {
            env.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.insert(prefix.clone(), url);
        env.insert(format!("{prefix}_PROTO"), lower);
        env.insert(format!("{prefix}_PORT"), port.port.to_string());
        env.insert(format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn env(service: serde_json::Value) -> Vec<String> {
        let mut env = BTreeMap::new();
        add_service(&serde_json::from_value(service).unwrap(), &mut env);
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn variables_are_upstreams() {
        let service = json!({"metadata": {"name": "foo-bar"}, "spec": {"clusterIP": "1.2.3.4",
            "ports": [{"port": 8080, "protocol": "TCP", "name": "http-x"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            env(service),
            [
                "FOO_BAR_PORT=tcp://1.2.3.4:8080",
                "FOO_BAR_PORT_53_UDP=udp://1.2.3.4:53",
                "FOO_BAR_PORT_53_UDP_ADDR=1.2.3.4",
                "FOO_BAR_PORT_53_UDP_PORT=53",
                "FOO_BAR_PORT_53_UDP_PROTO=udp",
                "FOO_BAR_PORT_8080_TCP=tcp://1.2.3.4:8080",
                "FOO_BAR_PORT_8080_TCP_ADDR=1.2.3.4",
                "FOO_BAR_PORT_8080_TCP_PORT=8080",
                "FOO_BAR_PORT_8080_TCP_PROTO=tcp",
                "FOO_BAR_SERVICE_HOST=1.2.3.4",
                "FOO_BAR_SERVICE_PORT=8080",
                "FOO_BAR_SERVICE_PORT_HTTP_X=8080",
            ]
        );
        let headless =
            json!({"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        assert!(env(headless).is_empty());
    }
}
