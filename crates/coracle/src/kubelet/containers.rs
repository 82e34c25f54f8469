//! The runtime of Linux containers, on a node that has one (upstream: `PreInitRuntimeService`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use coracle_core::cm::CgroupDriver;
use coracle_core::providers::RegisteredProvider;
use coracle_cri::{CriProvider, Options};
use coracle_provider::RuntimeService as _;

use crate::config::KubeletConfiguration;

/// Events are hints at best, so that a list finds what ended (`genericPlegRelistPeriod`).
const RELIST_PERIOD: Duration = Duration::from_secs(1);

/// A container runtime that answers.
pub(super) struct Containers {
    provider: Arc<CriProvider>,
    /// Name and version as the Node's `containerRuntimeVersion` shows them: `containerd://1.7.0`.
    pub(super) version: String,
}

impl Containers {
    /// Connects to the runtime that the configuration names, if it does.
    pub(super) async fn connect(config: &KubeletConfiguration) -> anyhow::Result<Option<Self>> {
        let endpoint = config.container_runtime_endpoint.as_str();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let runtime_socket = socket("containerRuntimeEndpoint", endpoint)?;
        let image_socket = match config.image_service_endpoint.as_str() {
            "" => runtime_socket.clone(),
            endpoint => socket("imageServiceEndpoint", endpoint)?,
        };
        let options = Options {
            runtime_socket,
            image_socket,
            request_timeout: config.runtime_request_timeout,
            cpu_quota_period: config.cpu_cfs_quota.then_some(config.cpu_cfs_quota_period),
        };
        let connect = async {
            let provider = CriProvider::connect(options).await?;
            let version = provider.version().await?;
            Ok::<_, coracle_provider::Error>((provider, version))
        };
        let (provider, version) = connect
            .await
            .with_context(|| format!("cannot connect to the container runtime at {endpoint}"))?;
        let version = format!("{}://{}", version.runtime_name, version.runtime_version);
        Ok(Some(Self { provider: Arc::new(provider), version }))
    }

    /// Who makes control groups, as the runtime says; none if it is too old to.
    pub(super) async fn cgroup_driver(&self) -> anyhow::Result<Option<CgroupDriver>> {
        let driver =
            self.provider.cgroup_driver().await.context("cannot ask the runtime for its cgroup driver")?;
        Ok(driver.map(|driver| match driver {
            coracle_cri::CgroupDriver::Systemd => CgroupDriver::Systemd,
            coracle_cri::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        }))
    }

    /// For the pipeline. Handlers need no names: whatever is nobody else's is the runtime's.
    pub(super) fn registered(&self) -> RegisteredProvider {
        RegisteredProvider {
            provider: self.provider.clone(),
            handlers: Vec::new(),
            relist_period: RELIST_PERIOD,
        }
    }
}

/// The path of a Unix socket, as `unix:///path` or, as upstream still takes it, alone.
fn socket(field: &str, endpoint: &str) -> anyhow::Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        bail!(
            "{field} {endpoint:?} is not a Unix socket: write it as unix:///run/containerd/containerd.sock"
        );
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        for endpoint in ["unix:///run/c.sock", "/run/c.sock"] {
            assert_eq!(socket("f", endpoint).unwrap(), PathBuf::from("/run/c.sock"));
        }
        for endpoint in ["tcp://localhost:1", "npipe:////./pipe/c", "run/c.sock", "unix://c.sock"] {
            assert!(socket("f", endpoint).unwrap_err().to_string().contains("unix:///run"), "{endpoint}");
        }
    }
}
