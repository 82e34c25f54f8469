//! Objects that pods refer to.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::broadcast;

use super::ApiError;

/// Kinds that [`ObjectReader`] gives notice of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// An object that changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Reads objects, from a cache where one is kept. Pods are registered so that a cache can be kept for exactly what
/// they refer to; an object of no registered pod can still be read, at the price of a request.
#[async_trait]
pub trait ObjectReader: Send + Sync {
    /// A ConfigMap.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError>;

    /// A Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError>;

    /// A RuntimeClass.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError>;

    /// The Services of a namespace, once they have been listed.
    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, ApiError>;

    /// This node as the apiserver last showed it; none before it is registered, or without a cluster.
    fn node(&self) -> Option<Arc<Node>>;

    /// This node, asked for now and not taken from a cache.
    async fn fetch_node(&self) -> Result<Option<Arc<Node>>, ApiError> {
        Ok(self.node())
    }

    /// From now on, what this pod refers to is wanted.
    fn register_pod(&self, pod: &Pod);

    /// What this pod referred to is no longer wanted on its account.
    fn unregister_pod(&self, pod: &Pod);

    /// Changes of objects of registered pods. A receiver that lags has to assume that everything changed.
    fn changes(&self) -> broadcast::Receiver<ObjectKey>;
}

/// Issues service-account tokens.
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// Asks for a token (`POST …/serviceaccounts/{name}/token`); the answer has `status` set.
    async fn create_token(
        &self,
        namespace: &str,
        service_account: &str,
        request: TokenRequest,
    ) -> Result<TokenRequest, ApiError>;
}

/// Service accounts and their tokens, for plugins that pull with them.
#[async_trait]
pub trait ServiceAccounts: TokenIssuer {
    /// A service account, asked for anew.
    async fn service_account(&self, namespace: &str, name: &str) -> Result<ServiceAccount, ApiError>;
}
