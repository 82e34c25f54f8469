//! Who calls, and whether they may (upstream: `cmd/kubelet/app/auth.go`, `pkg/kubelet/server/auth.go`).

mod attributes;
mod authenticator;
mod authorizer;
mod filter;
mod reviews;
mod token;
mod x509;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::AccessReviewer;

use crate::tls::TlsError;
use authenticator::Authenticator;
use authorizer::Authorizer;

pub(crate) use attributes::is_subpath;
pub(crate) use filter::require_auth;

/// How callers prove who they are (`KubeletAuthentication` in the configuration). At least one way is needed.
#[derive(Default)]
pub struct Authentication {
    /// Client certificates of these CAs are believed; a PEM file, read again when it changes.
    pub client_ca_file: Option<PathBuf>,
    /// Bearer tokens are reviewed by the apiserver.
    pub webhook: Option<TokenWebhook>,
    /// Whoever shows no credentials at all is `system:anonymous`, instead of refused.
    pub anonymous: bool,
}

/// Token review.
pub struct TokenWebhook {
    /// Who reviews.
    pub reviewer: Arc<dyn AccessReviewer>,
    /// How long an answer holds, good or bad; upstream's default is 2 minutes.
    pub cache_ttl: Duration,
}

/// Who may do what (`KubeletAuthorization` in the configuration).
pub enum Authorization {
    /// Everybody who is authenticated may do everything.
    AlwaysAllow,
    /// The apiserver decides.
    Webhook {
        /// Who reviews.
        reviewer: Arc<dyn AccessReviewer>,
        /// How long a yes holds; upstream's default is 5 minutes.
        cache_authorized_ttl: Duration,
        /// How long a no holds; upstream's default is 30 seconds.
        cache_unauthorized_ttl: Duration,
    },
}

/// Authenticates and authorizes every request (`KubeletAuth`).
pub struct KubeletAuth {
    node_name: String,
    authenticator: Authenticator,
    authorizer: Authorizer,
}

impl KubeletAuth {
    /// Builds it (`BuildAuth`). Reads the CA file, so that a bad one is noticed at the start.
    pub fn new(
        node_name: impl Into<String>,
        authentication: Authentication,
        authorization: Authorization,
    ) -> Result<Self, BuildAuthError> {
        Ok(Self {
            node_name: node_name.into(),
            authenticator: Authenticator::new(authentication)?,
            authorizer: Authorizer::new(authorization),
        })
    }

    /// Whether client certificates should be asked for.
    pub(crate) fn wants_client_certificates(&self) -> bool {
        self.authenticator.wants_client_certificates()
    }
}

impl fmt::Debug for KubeletAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeletAuth").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

/// Why [`KubeletAuth`] could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildAuthError {
    /// Nobody could ever be let in.
    #[error(
        "no authentication method configured: set authentication.x509.clientCAFile, or enable authentication.webhook"
    )]
    NoMethod,
    /// The client CA cannot be used.
    #[error(transparent)]
    ClientCa(#[from] TlsError),
}
