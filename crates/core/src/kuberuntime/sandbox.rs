//! What a pod's sandbox is made from (upstream: `kuberuntime_sandbox.go`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_provider::{
    ArtifactKind, HostAlias, NetworkMode, PortMapping, Protocol, Provider, SandboxConfig, SandboxStatus,
};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::hostname::PodHostname;
use super::labels;
use super::manager::KubeGenericRuntimeManager;
use super::sync_result::{SyncFailure, reason};
use crate::metrics::{self, runtime_operation};
use crate::pod::PodExt;
use crate::recorder;

impl KubeGenericRuntimeManager {
    /// Makes the sandbox of a pod (`createPodSandbox`).
    pub(super) async fn create_pod_sandbox(
        &self,
        pod: &Pod,
        attempt: u32,
    ) -> Result<(Arc<dyn Provider>, Arc<SandboxStatus>), SyncFailure> {
        let run = async {
            let (provider, handler) = self.provider_for(pod).await?;
            let config = self.generate_pod_sandbox_config(pod, attempt, handler, &*provider)?;
            let run_by = provider.clone();
            let change = async move { runtime_operation("run_podsandbox", run_by.run_sandbox(config)).await };
            let status = self.in_flight.change(provider.name(), &pod.uid(), change).await?;
            self.cache.set_sandbox(provider.name(), status.clone());
            Ok::<_, coracle_provider::Error>((provider, status))
        };
        metrics::STARTED_PODS.inc();
        run.await.map_err(|error| {
            metrics::STARTED_PODS_ERRORS.inc();
            let message = format!("Failed to create pod sandbox: {error}");
            self.recorder.warning(pod, recorder::reason::FAILED_CREATE_POD_SANDBOX, message.clone());
            SyncFailure::new(reason::CREATE_POD_SANDBOX, message)
        })
    }

    /// `generatePodSandboxConfig`.
    pub(super) fn generate_pod_sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
        runtime_handler: String,
        provider: &dyn Provider,
    ) -> Result<SandboxConfig, coracle_provider::Error> {
        let (hostname, domain) = self.names(pod).map_err(coracle_provider::Error::invalid)?;
        let mut config = SandboxConfig {
            pod: pod.pod_ref(),
            attempt,
            hostname,
            domain,
            labels: labels::pod_labels(pod),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
            log_directory: pod_log_directory(&self.options.pod_logs_dir, pod),
            dns: self.dns.pod_dns(pod, &self.recorder)?,
            host_aliases: host_aliases(pod)?,
            port_mappings: port_mappings(pod)?,
            network: if pod.is_host_network() { NetworkMode::Node } else { NetworkMode::Pod },
            runtime_handler,
            ..SandboxConfig::default()
        };
        if provider.runs() == ArtifactKind::RootFs {
            self.complete_linux_sandbox(pod, &mut config)?;
        }
        Ok(config)
    }

    /// The host name for the kernel, and the domain; a pod on the node's network has neither.
    fn names(&self, pod: &Pod) -> Result<(String, String), String> {
        if pod.is_host_network() {
            return Ok(Default::default());
        }
        let name = PodHostname::of(pod, &self.dns.cluster_domain)?;
        let as_fqdn = pod.pod_spec().set_hostname_as_fqdn.unwrap_or(false);
        Ok((name.for_kernel(as_fqdn)?, name.domain))
    }
}

/// The folder of a pod's logs (`BuildPodLogsDirectory`).
pub(super) fn pod_log_directory(root: &Path, pod: &Pod) -> PathBuf {
    root.join(pod_log_folder_name(pod.namespace(), pod.name(), &pod.uid()))
}

/// How that folder is called.
pub(super) fn pod_log_folder_name(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

fn host_aliases(pod: &Pod) -> Result<Vec<HostAlias>, coracle_provider::Error> {
    let aliases = pod.pod_spec().host_aliases.iter().flatten();
    aliases
        .map(|alias| {
            let ip = parse_ip("spec.hostAliases", &alias.ip)?;
            Ok(HostAlias { ip, hostnames: alias.hostnames.clone().unwrap_or_default() })
        })
        .collect()
}

fn port_mappings(pod: &Pod) -> Result<Vec<PortMapping>, coracle_provider::Error> {
    let ports = pod.containers().iter().chain(sidecars(pod)).flat_map(|c| c.ports.iter().flatten());
    ports.filter(|p| p.host_port.is_some_and(|port| port != 0)).map(port_mapping).collect()
}

fn sidecars(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers().iter().filter(|c| crate::pod::is_restartable_init_container(c))
}

fn port_mapping(port: &ContainerPort) -> Result<PortMapping, coracle_provider::Error> {
    let number = |field: &str, value: i32| {
        u16::try_from(value)
            .ok()
            .filter(|p| *p != 0)
            .ok_or_else(|| coracle_provider::Error::invalid(format!("{field} {value} is not a port number")))
    };
    let host_ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
    Ok(PortMapping {
        protocol: protocol(port),
        container_port: number("containerPort", port.container_port)?,
        host_port: number("hostPort", port.host_port.unwrap_or_default())?,
        host_ip: host_ip.map(|ip| parse_ip("hostIP", ip)).transpose()?,
    })
}

/// The protocol of a container's port; TCP if unset.
pub(super) fn protocol(port: &ContainerPort) -> Protocol {
    match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn parse_ip(field: &str, text: &str) -> Result<IpAddr, coracle_provider::Error> {
    text.parse()
        .map_err(|_| coracle_provider::Error::invalid(format!("{field}: {text:?} is not an IP address")))
}
