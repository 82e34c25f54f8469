//! What a container sees of the host (upstream: `makeMounts` in `kubelet_pods.go` and in `kuberuntime_container.go`).

use std::net::IpAddr;

use coracle_provider::{ArtifactKind, EnvVar, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::container::Sandbox;
use super::hostname::PodHostname;
use super::hosts_file::{ETC_HOSTS, managed_hosts, node_hosts};
use super::manager::KubeGenericRuntimeManager;
use super::termination_message::termination_message_path;
use crate::blocking::blocking;
use crate::pod::PodExt;

impl KubeGenericRuntimeManager {
    /// Volumes, the hosts file, and the file for the container's last words. The error says why it cannot start.
    pub(super) async fn make_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        restart_count: u32,
        envs: &[EnvVar],
        sandbox: &Sandbox,
    ) -> Result<Vec<Mount>, String> {
        let volumes = self.volumes.container_mounts(pod, container, envs).await;
        let mut mounts = volumes.map_err(|error| error.to_string())?;
        let ips = &sandbox.status.network.ips;
        if should_mount_hosts_file(pod, ips) && !is_mounted(&mounts, ETC_HOSTS) {
            mounts.push(self.hosts_mount(pod, ips, sandbox).await?);
        }
        mounts.extend(self.termination_log_mount(pod, container, restart_count, &mounts).await);
        Ok(mounts)
    }

    /// `makeHostsMount`. Guests of WebAssembly may only read it: no name of theirs is looked up there.
    async fn hosts_mount(&self, pod: &Pod, ips: &[IpAddr], sandbox: &Sandbox) -> Result<Mount, String> {
        let aliases = pod.pod_spec().host_aliases.as_deref().unwrap_or_default();
        let content = if pod.is_host_network() {
            let node = blocking(|| std::fs::read(ETC_HOSTS)).await;
            node_hosts(&node.map_err(|error| format!("reading {ETC_HOSTS}: {error}"))?, aliases)
        } else {
            managed_hosts(ips, &PodHostname::of(pod, &self.dns.cluster_domain)?, aliases)
        };
        let written = self.volumes.write_hosts_file(&pod.uid(), content).await;
        Ok(Mount {
            container_path: ETC_HOSTS.to_owned(),
            host_path: written.map_err(|error| format!("the hosts file: {error}"))?,
            read_only: sandbox.provider.runs() == ArtifactKind::Wasm,
            selinux_relabel: true,
            ..Mount::default()
        })
    }

    /// None where the container has something of its own at that path. It starts without one rather than not at all.
    async fn termination_log_mount(
        &self,
        pod: &Pod,
        container: &Container,
        restart_count: u32,
        mounts: &[Mount],
    ) -> Option<Mount> {
        let wanted = container.termination_message_path.as_deref().unwrap_or_default();
        let container_path = termination_message_path(wanted)?;
        if is_mounted(mounts, &container_path) {
            return None;
        }
        match self.volumes.make_termination_log(&pod.uid(), &container.name, restart_count).await {
            Ok(host_path) => {
                Some(Mount { container_path, host_path, selinux_relabel: true, ..Mount::default() })
            }
            Err(error) => {
                tracing::error!(pod = pod.full_name(), container = container.name, %error, "no termination log");
                None
            }
        }
    }
}

/// Not before the pod has its addresses (`shouldMountHostsFile`).
fn should_mount_hosts_file(pod: &Pod, ips: &[IpAddr]) -> bool {
    !ips.is_empty() || pod.is_host_network()
}

/// Whether a path is the place of a mount, however it is written.
fn is_mounted(mounts: &[Mount], path: &str) -> bool {
    fn parts(path: &str) -> impl Iterator<Item = &str> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".")
    }
    mounts.iter().any(|mount| parts(&mount.container_path).eq(parts(path)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `TestMakeMountsEtcHostsFile`, as far as it is about the pod.
    #[test]
    fn a_pod_has_a_hosts_file_once_it_has_addresses() {
        let ip: IpAddr = "192.168.0.1".parse().unwrap();
        for (host_network, ips, expected) in
            [(false, &[ip][..], true), (false, &[], false), (true, &[ip], true), (true, &[], true)]
        {
            let spec = json!({ "spec": { "containers": [], "hostNetwork": host_network } });
            let pod: Pod = serde_json::from_value(spec).unwrap();
            assert_eq!(should_mount_hosts_file(&pod, ips), expected, "{host_network} {ips:?}");
        }
    }

    #[test]
    fn a_mount_is_known_by_its_place() {
        let mounts = [Mount { container_path: "/etc//hosts/".to_owned(), ..Mount::default() }];
        assert!(is_mounted(&mounts, "/etc/hosts"));
        assert!(!is_mounted(&mounts, "/etc") && !is_mounted(&mounts, "/etc/hosts2"));
    }
}
