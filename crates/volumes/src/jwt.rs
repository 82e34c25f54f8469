//! What a service-account token says of itself. Nothing is verified: the file was written by this program, and the
//! apiserver is the one who has to believe it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The claims that tell whether a token is still the right one.
#[derive(Deserialize)]
pub(crate) struct Claims {
    #[serde(default, rename = "aud")]
    audience: Audience,
    /// Seconds since the epoch.
    #[serde(rename = "exp")]
    pub(crate) expires_at: i64,
    /// Seconds since the epoch.
    #[serde(rename = "iat")]
    pub(crate) issued_at: i64,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
}

/// The claims under `kubernetes.io` (`pkg/serviceaccount/claims.go`).
#[derive(Deserialize)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    pub(crate) pod: ObjectClaim,
    #[serde(rename = "serviceaccount")]
    pub(crate) service_account: ObjectClaim,
}

/// An object that a token is bound to.
#[derive(Deserialize)]
pub(crate) struct ObjectClaim {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// RFC 7519 allows both forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    /// Reads the middle part of a JWT.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// Whether the token is for this audience and no other.
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match &self.audience {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.len() == 1 && many[0] == audience,
        }
    }
}
