//! Whose credentials an image is pulled with (upstream: `pkg/credentialprovider`).
//!
//! They come from the pod's pull secrets, from the node's own Docker configuration, and from plugins of the operator.
//! Each one remembers where it is from: an image that was pulled with a secret is not for pods without it.

mod config;
mod docker_config;
mod exec;
mod keyring;
mod plugin;

use coracle_provider::RegistryAuth;

pub use config::ConfigError;
pub use docker_config::NodeKeyring;
pub(crate) use keyring::Keyring;
pub use plugin::CredentialPlugins;

/// A Secret or a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Coordinates {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

/// Where credentials are from (`CredentialSource`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The node: every pod on it may use them.
    Node,
    /// A pull secret.
    Secret(Coordinates),
    /// A plugin, by the token of a service account.
    ServiceAccount(Coordinates),
}

/// Credentials with where they are from (`TrackedAuthConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedAuthConfig {
    /// The credentials.
    pub auth: RegistryAuth,
    /// Tells credentials apart without showing them.
    pub hash: String,
    /// Where they are from.
    pub source: CredentialSource,
}

/// The pod that an image is pulled for, as far as plugins are told.
#[derive(Clone, Copy, Debug)]
pub struct PodIdentity<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// `spec.serviceAccountName`; empty for static pods.
    pub service_account: &'a str,
}
