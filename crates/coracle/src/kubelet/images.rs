//! How images are pulled, and who may have them.

use std::sync::Arc;

use anyhow::Context;
use coracle_core::credential_provider::{CredentialPlugins, NodeKeyring};
use coracle_core::kuberuntime::ImageManagerOptions;
use coracle_core::ports::ServiceAccounts;
use coracle_core::pull_manager::{PullManager, VerificationPolicy};

use super::clients::Clients;
use crate::config::{KubeletConfiguration, Resolved};

/// Where operators say how registries are reached: containerd's folder, so that it need be said once a node.
pub(crate) const HOSTS_DIR: &str = "/etc/containerd/certs.d";

/// The image manager's settings. Reads what is known of earlier pulls, and the configuration of plugins.
pub(super) fn image_manager_options(
    resolved: &Resolved,
    clients: &Clients,
) -> anyhow::Result<ImageManagerOptions> {
    let (config, flags) = (&resolved.config, &resolved.flags);
    let policy = VerificationPolicy::new(
        &config.image_pull_credentials_verification_policy,
        &config.preloaded_images_verification_allowlist,
    )
    .map_err(anyhow::Error::msg)?;
    let pull_manager = PullManager::open(&flags.root_dir, policy)
        .with_context(|| format!("cannot open the records of pulls in {}", flags.root_dir.display()))?;
    let plugins = match &flags.credential_providers {
        Some((config, bin_dir)) => {
            let tokens = clients.tokens.clone().map(|tokens| tokens as Arc<dyn ServiceAccounts>);
            let plugins = CredentialPlugins::load(config, bin_dir, tokens);
            Some(Arc::new(plugins.context("cannot use the credential provider plugins")?))
        }
        None => None,
    };
    let qps = config.registry_pull_qps;
    Ok(ImageManagerOptions {
        max_parallel_pulls: parallel_pulls(config),
        rate: (qps > 0).then(|| (f64::from(qps), config.registry_burst)),
        pull_manager: Some(pull_manager),
        node_keyring: Arc::new(NodeKeyring::new(flags.root_dir.clone(), std::env::home_dir())),
        credential_plugins: plugins,
        progress: None,
    })
}

fn parallel_pulls(config: &KubeletConfiguration) -> Option<usize> {
    if config.serialize_image_pulls {
        return Some(1);
    }
    config.max_parallel_image_pulls.and_then(|n| usize::try_from(n).ok())
}
