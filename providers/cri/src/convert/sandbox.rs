//! Sandboxes.

use std::net::IpAddr;
use std::time::Duration;

use coracle_provider::{
    NetworkMode, PodNetwork, PodRef, Protocol, Result, Revision, SandboxConfig, SandboxState, SandboxStatus,
};

use super::linux::sandbox_security;
use super::{linux_resources, path_text, timestamp, to_map};
use crate::bindings as cri;

/// Upstream's `PodSandboxConfig`, field by field (`kuberuntime_sandbox.go`).
pub(crate) fn sandbox_config(
    config: &SandboxConfig,
    quota_period: Option<Duration>,
) -> Result<cri::PodSandboxConfig> {
    let dns = &config.dns;
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: config.linux.cgroup_parent.clone(),
        security_context: Some(sandbox_security(&config.linux.security, config.network)),
        sysctls: to_map(&config.linux.sysctls),
        overhead: Some(linux_resources(&config.overhead, quota_period)),
        resources: Some(linux_resources(&config.resources, quota_period)),
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: config.pod.name.clone(),
            uid: config.pod.uid.clone(),
            namespace: config.pod.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: path_text(&config.log_directory)?,
        dns_config: Some(cri::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: to_map(&config.labels),
        annotations: to_map(&config.annotations),
        linux: Some(linux),
        windows: None,
    })
}

fn port_mapping(mapping: &coracle_provider::PortMapping) -> cri::PortMapping {
    let protocol = match mapping.protocol {
        Protocol::Tcp => cri::Protocol::Tcp,
        Protocol::Udp => cri::Protocol::Udp,
        Protocol::Sctp => cri::Protocol::Sctp,
    };
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

pub(crate) fn sandbox_state(state: i32) -> SandboxState {
    match cri::PodSandboxState::try_from(state) {
        Ok(cri::PodSandboxState::SandboxReady) => SandboxState::Ready,
        _ => SandboxState::NotReady,
    }
}

/// What a runtime says of a sandbox. The table gives the revision.
pub(crate) fn sandbox_status(status: cri::PodSandboxStatus) -> Result<SandboxStatus> {
    let options = status.linux.and_then(|linux| linux.namespaces?.options);
    let is_node = options.is_some_and(|it| it.network() == cri::NamespaceMode::Node);
    let mode = if is_node { NetworkMode::Node } else { NetworkMode::Pod };
    let metadata = status.metadata.unwrap_or_default();
    Ok(SandboxStatus {
        id: status.id,
        pod: PodRef { uid: metadata.uid, namespace: metadata.namespace, name: metadata.name },
        attempt: metadata.attempt,
        state: sandbox_state(status.state),
        created_at: timestamp(status.created_at)?,
        network: PodNetwork { mode, ips: status.network.map(addresses).unwrap_or_default(), namespace: None },
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        runtime_handler: status.runtime_handler,
        revision: Revision::default(),
    })
}

/// The primary one first; none if one of them cannot be read (`determinePodSandboxIPs`).
fn addresses(network: cri::PodSandboxNetworkStatus) -> Vec<IpAddr> {
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|it| it.ip));
    let given: Vec<String> = all.filter(|ip| !ip.is_empty()).collect();
    given.iter().map(|ip| ip.parse().ok()).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(ip: &str, more: &[&str]) -> Vec<String> {
        let additional_ips = more.iter().map(|ip| cri::PodIp { ip: (*ip).to_owned() }).collect();
        let network = cri::PodSandboxNetworkStatus { ip: ip.to_owned(), additional_ips };
        addresses(network).iter().map(ToString::to_string).collect()
    }

    /// `TestDeterminePodSandboxIPs`.
    #[test]
    fn addresses_are_those_that_can_be_read() {
        assert_eq!(ips("10.0.0.1", &[]), ["10.0.0.1"]);
        assert_eq!(ips("10.0.0.1", &["fd00::1"]), ["10.0.0.1", "fd00::1"]);
        assert!(ips("", &[]).is_empty());
        assert!(ips("x", &["10.0.0.1"]).is_empty());
        assert!(ips("10.0.0.1", &["x"]).is_empty());
    }
}
