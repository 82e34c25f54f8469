//! Service-account tokens (upstream: `pkg/kubelet/token`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, ServiceAccounts, TokenIssuer};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;

use crate::api::{collection, encode, unbuildable};
use crate::authorizer_race::past_authorizer_race;
use crate::client::ApiClient;

/// Asks the apiserver for tokens. Nothing is kept here.
pub struct KubeTokenIssuer {
    client: Arc<ApiClient>,
}

impl KubeTokenIssuer {
    /// An issuer that asks through this client.
    pub fn new(client: Arc<ApiClient>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl TokenIssuer for KubeTokenIssuer {
    async fn create_token(
        &self,
        namespace: &str,
        service_account: &str,
        request: TokenRequest,
    ) -> Result<TokenRequest, ApiError> {
        let body = encode(&request)?;
        past_authorizer_race(|| async {
            let request = collection::<ServiceAccount>(Some(namespace))
                .create_subresource("token", service_account, &PostParams::default(), body.clone())
                .map_err(unbuildable)?;
            self.client.call(request).await
        })
        .await
    }
}

#[async_trait]
impl ServiceAccounts for KubeTokenIssuer {
    async fn service_account(&self, namespace: &str, name: &str) -> Result<ServiceAccount, ApiError> {
        self.client.get(Some(namespace), name).await
    }
}
