//! Service-account tokens of pods (`pkg/kubelet/token/token_manager.go`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::pod::PodExt;
use coracle_core::ports::{ApiError, TokenIssuer, VolumeError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use crate::jwt::Claims;
use crate::retry::until_related;

/// A token is renewed after this time, however long it would live.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Renewals of many tokens of one age are spread over this time.
const MAX_JITTER_MILLIS: i64 = 10_000;
/// What the API puts where `expirationSeconds` is not set.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// How long a renewal may hold up a pod whose token is still good.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(5);

/// A token. Two are the same if they are one object.
pub(crate) struct Token {
    value: String,
    expires_at: Timestamp,
    renew_at: Timestamp,
}

impl Token {
    /// With `issued_at` and `expires_at` as upstream reckons them: renewed after 80 % of the time between, at the
    /// latest after a day, a little earlier by chance.
    fn new(value: String, issued_at: Timestamp, expires_at: Timestamp) -> Self {
        let lifetime = expires_at.duration_since(issued_at);
        let jitter = SignedDuration::from_millis(rand::random_range(0..MAX_JITTER_MILLIS));
        let age = (lifetime / 5 * 4).min(MAX_AGE) - jitter;
        Self { value, expires_at, renew_at: issued_at.checked_add(age).unwrap_or(issued_at) }
    }

    /// The secret itself.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Which token of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    service_account: String,
    /// Empty for the apiserver's own.
    audience: String,
    expiration_seconds: i64,
}

impl TokenKey {
    /// The token that a projection asks for.
    pub(crate) fn new(pod: &Pod, projection: &ServiceAccountTokenProjection) -> Self {
        let service_account = pod.pod_spec().service_account_name.as_deref().filter(|name| !name.is_empty());
        Self {
            service_account: service_account.unwrap_or("default").to_owned(),
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION_SECONDS),
        }
    }
}

/// Keeps the tokens of running pods and renews them in time.
pub(crate) struct TokenManager {
    issuer: Option<Arc<dyn TokenIssuer>>,
    cache: Mutex<HashMap<String, HashMap<TokenKey, Arc<Token>>>>,
}

impl TokenManager {
    /// Without an issuer there are no tokens.
    pub(crate) fn new(issuer: Option<Arc<dyn TokenIssuer>>) -> Self {
        Self { issuer, cache: Mutex::default() }
    }

    /// Whether there can be tokens at all.
    pub(crate) fn has_issuer(&self) -> bool {
        self.issuer.is_some()
    }

    /// A token for a pod: the one that is kept while it is fresh, else a new one. If there is no new one, the old one
    /// serves on until it expires (`GetServiceAccountToken`).
    pub(crate) async fn get_service_account_token(
        &self,
        pod: &Pod,
        key: TokenKey,
    ) -> Result<Arc<Token>, VolumeError> {
        let uid = pod.uid();
        let kept = self.cache.lock().get(uid.as_str()).and_then(|tokens| tokens.get(&key)).cloned();
        let Some(kept) = kept.filter(|token| clock::now() < token.expires_at) else {
            let token = self.request(pod, &key).await.map_err(|error| failed(&key, error))?;
            return Ok(self.keep(&uid, key, token));
        };
        if clock::now() < kept.renew_at {
            return Ok(kept);
        }
        match tokio::time::timeout(RENEWAL_PATIENCE, self.request(pod, &key)).await {
            Ok(Ok(token)) => return Ok(self.keep(&uid, key, token)),
            Ok(Err(error)) => {
                tracing::warn!(pod = pod.display_name(), %error, "cannot renew a service account token");
            }
            Err(_) => {
                tracing::warn!(pod = pod.display_name(), "renewing a service account token takes too long")
            }
        }
        Ok(kept)
    }

    /// Takes a token that an earlier run of the agent left on disk, if it is the right one and still fresh.
    pub(crate) fn adopt(&self, pod: &Pod, key: TokenKey, value: String) -> bool {
        let Some(token) = reusable(pod, &key, value) else { return false };
        self.keep(&pod.uid(), key, token);
        true
    }

    /// Forgets the tokens of a pod (`DeleteServiceAccountToken`).
    pub(crate) fn delete_service_account_tokens(&self, pod_uid: &str) {
        self.cache.lock().remove(pod_uid);
    }

    fn keep(&self, pod_uid: &str, key: TokenKey, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        self.cache.lock().entry(pod_uid.to_owned()).or_default().insert(key, token.clone());
        token
    }

    async fn request(&self, pod: &Pod, key: &TokenKey) -> Result<Token, ApiError> {
        let Some(issuer) = &self.issuer else {
            return Err(ApiError::Invalid("there is no apiserver to ask".to_owned()));
        };
        let request = token_request(pod, key);
        let answer =
            until_related(|| issuer.create_token(pod.namespace(), &key.service_account, request.clone()))
                .await?;
        let incomplete = || ApiError::Unavailable("the apiserver answered without a token".to_owned());
        let status = answer.status.ok_or_else(incomplete)?;
        let value = status.token.filter(|token| !token.is_empty()).ok_or_else(incomplete)?;
        let expires_at = status.expiration_timestamp.ok_or_else(incomplete)?.0;
        // The server may have granted another lifetime than was asked for.
        let granted = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(key.expiration_seconds);
        let issued_at =
            expires_at.checked_sub(SignedDuration::from_secs(granted)).unwrap_or_else(|_| clock::now());
        Ok(Token::new(value, issued_at, expires_at))
    }
}

fn token_request(pod: &Pod, key: &TokenKey) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!key.audience.is_empty()).then(|| vec![key.audience.clone()]),
            expiration_seconds: Some(key.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            attestations: None,
        }),
        ..TokenRequest::default()
    }
}

fn failed(key: &TokenKey, error: ApiError) -> VolumeError {
    let message = format!("cannot get a token for service account {:?}: {error}", key.service_account);
    match error {
        ApiError::Invalid(_) => VolumeError::Invalid(message),
        _ => VolumeError::NotReady(message),
    }
}

fn reusable(pod: &Pod, key: &TokenKey, value: String) -> Option<Token> {
    let claims = Claims::parse(&value)?;
    let bound = &claims.kubernetes;
    let is_right = bound.pod.uid == *pod.uid()
        && bound.pod.name == pod.name()
        && bound.namespace == pod.namespace()
        && bound.service_account.name == key.service_account
        && (key.audience.is_empty() || claims.is_for(&key.audience));
    if !is_right {
        return None;
    }
    let issued_at = Timestamp::from_second(claims.issued_at).ok()?;
    // With --service-account-extend-token-expiration the token itself says a year, whatever was asked for.
    let asked = claims.issued_at.checked_add(key.expiration_seconds)?;
    let expires_at = Timestamp::from_second(claims.expires_at.min(asked)).ok()?;
    let token = Token::new(value, issued_at, expires_at);
    let now = clock::now();
    (issued_at <= now && now < token.renew_at).then_some(token)
}
