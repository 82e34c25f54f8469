//! Who callers of the kubelet's API are, and what they may do (upstream: `cmd/kubelet/app/auth.go`).

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{AccessReviewer, ApiError, Attributes, UserInfo};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo as ReviewedUser};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};

use crate::client::ApiClient;

/// Asks the apiserver by TokenReview and SubjectAccessReview. Answers are not cached here.
pub struct KubeAccessReviewer {
    client: Arc<ApiClient>,
}

impl KubeAccessReviewer {
    /// A reviewer that asks through this client.
    pub fn new(client: Arc<ApiClient>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl AccessReviewer for KubeAccessReviewer {
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let status = self.client.create(None, &review).await?.status.unwrap_or_default();
        let authenticated = status.authenticated.unwrap_or_default();
        Ok(status.user.filter(|_| authenticated).map(user_info))
    }

    async fn review_access(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, ApiError> {
        let review = SubjectAccessReview { spec: access_review(user, attributes), ..Default::default() };
        let status = self.client.create(None, &review).await?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

fn user_info(user: ReviewedUser) -> UserInfo {
    UserInfo {
        username: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }
}

fn access_review(user: &UserInfo, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReviewSpec {
        user: given(&user.username),
        uid: given(&user.uid),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
        resource_attributes: Some(ResourceAttributes {
            verb: given(&attributes.verb),
            version: Some("v1".to_owned()),
            resource: given(&attributes.resource),
            subresource: given(&attributes.subresource),
            name: given(&attributes.name),
            ..ResourceAttributes::default()
        }),
        non_resource_attributes: None,
    }
}
