//! Asks whether somebody may do something.

use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::{AccessReviewer, Attributes, UserInfo};

use super::Authorization;
use super::reviews::{ReviewError, Reviews};

pub(super) enum Authorizer {
    AlwaysAllow,
    Webhook(Webhook),
}

/// Has access reviewed by the apiserver, and remembers the answers (`WebhookAuthorizer`).
pub(super) struct Webhook {
    reviewer: Arc<dyn AccessReviewer>,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    /// The path is not part of the question: it is no part of a review of a resource, and anybody can vary it.
    reviews: Reviews<(UserInfo, Attributes), bool>,
}

impl Authorizer {
    pub(super) fn new(authorization: Authorization) -> Self {
        match authorization {
            Authorization::AlwaysAllow => Self::AlwaysAllow,
            Authorization::Webhook { reviewer, cache_authorized_ttl, cache_unauthorized_ttl } => {
                Self::Webhook(Webhook {
                    reviewer,
                    authorized_ttl: cache_authorized_ttl,
                    unauthorized_ttl: cache_unauthorized_ttl,
                    reviews: Reviews::new(),
                })
            }
        }
    }

    /// Whether the user may do this.
    pub(super) async fn authorize(
        &self,
        user: &UserInfo,
        attributes: &Attributes,
    ) -> Result<bool, ReviewError> {
        match self {
            Self::AlwaysAllow => Ok(true),
            Self::Webhook(webhook) => webhook.authorize(user, attributes).await,
        }
    }
}

impl Webhook {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, ReviewError> {
        let question = (user.clone(), Attributes { path: String::new(), ..attributes.clone() });
        let allowed = self.reviews.get(question, || {
            let (reviewer, user, attributes) = (self.reviewer.clone(), user.clone(), attributes.clone());
            let (authorized_ttl, unauthorized_ttl) = (self.authorized_ttl, self.unauthorized_ttl);
            async move {
                let allowed = reviewer.review_access(&user, &attributes).await?;
                Ok((allowed, if allowed { authorized_ttl } else { unauthorized_ttl }))
            }
        });
        allowed.await
    }
}
