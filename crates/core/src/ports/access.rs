//! Who may call the kubelet's own API.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::ApiError;

/// Somebody who proved who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    /// The user name.
    pub username: String,
    /// A unique id, if the authenticator knows one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Anything else that the authenticator said.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do, as `NodeAuthorizerAttributesGetter` writes it upstream (`pkg/kubelet/server/auth.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// `get`, `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// The resource; always `nodes`.
    pub resource: String,
    /// The subresource: `proxy`, `log`, `metrics`, `stats`, …
    pub subresource: String,
    /// The node's name.
    pub name: String,
    /// The request's path.
    pub path: String,
}

/// Asks the apiserver about callers (TokenReview, SubjectAccessReview). Answers are cached by the caller.
#[async_trait]
pub trait AccessReviewer: Send + Sync {
    /// Whose token this is; none if it is nobody's.
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError>;

    /// Whether this user may do this.
    async fn review_access(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, ApiError>;
}
