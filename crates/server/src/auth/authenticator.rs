//! Puts the ways to authenticate together (upstream: `authenticatorfactory.DelegatingAuthenticatorConfig`).

use coracle_core::ports::UserInfo;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use tracing::debug;

use super::token::TokenAuthenticator;
use super::x509::CertificateAuthenticator;
use super::{Authentication, BuildAuthError};

const ANONYMOUS: &str = "system:anonymous";
const ALL_AUTHENTICATED: &str = "system:authenticated";
const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";

/// Nobody we know. Why is logged and not told: the answer to all of it is 401.
#[derive(Debug)]
pub(super) struct Unauthenticated;

pub(super) struct Authenticator {
    certificates: Option<CertificateAuthenticator>,
    tokens: Option<TokenAuthenticator>,
    anonymous: bool,
}

impl Authenticator {
    pub(super) fn new(authentication: Authentication) -> Result<Self, BuildAuthError> {
        let Authentication { client_ca_file, webhook, anonymous } = authentication;
        if client_ca_file.is_none() && webhook.is_none() && !anonymous {
            return Err(BuildAuthError::NoMethod);
        }
        Ok(Self {
            certificates: client_ca_file.map(CertificateAuthenticator::new).transpose()?,
            tokens: webhook.map(TokenAuthenticator::new),
            anonymous,
        })
    }

    pub(super) fn wants_client_certificates(&self) -> bool {
        self.certificates.is_some()
    }

    /// Who is calling. The first credential that is good counts; anonymous is only who showed none, good or bad.
    pub(super) async fn authenticate(
        &self,
        certificates: &[CertificateDer<'_>],
        headers: &HeaderMap,
    ) -> Result<UserInfo, Unauthenticated> {
        let mut showed_bad_credentials = false;
        if let Some(authenticator) = &self.certificates {
            match authenticator.authenticate(certificates).await {
                Ok(Some(user)) => return Ok(with_authenticated_group(user)),
                Ok(None) => {}
                Err(error) => {
                    debug!(%error, "refused a client certificate");
                    showed_bad_credentials = true;
                }
            }
        }
        if let Some(authenticator) = &self.tokens {
            match authenticator.authenticate(headers).await {
                Ok(Some(user)) => return Ok(with_authenticated_group(user)),
                Ok(None) => {}
                Err(error) => {
                    debug!(%error, "refused a bearer token");
                    showed_bad_credentials = true;
                }
            }
        }
        if showed_bad_credentials || !self.anonymous {
            return Err(Unauthenticated);
        }
        Ok(UserInfo {
            username: ANONYMOUS.into(),
            groups: vec![ALL_UNAUTHENTICATED.into()],
            ..UserInfo::default()
        })
    }
}

/// `AuthenticatedGroupAdder`.
fn with_authenticated_group(mut user: UserInfo) -> UserInfo {
    let says_already = |group: &String| group == ALL_AUTHENTICATED || group == ALL_UNAUTHENTICATED;
    if user.username != ANONYMOUS && !user.groups.iter().any(says_already) {
        user.groups.push(ALL_AUTHENTICATED.into());
    }
    user
}
