//! Bearer tokens.

use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::{AccessReviewer, UserInfo};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use ring::rand::SystemRandom;

use super::TokenWebhook;
use super::reviews::{ReviewError, Reviews};

/// Why a token names nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("invalid bearer token")]
    Invalid,
    #[error(transparent)]
    Review(#[from] ReviewError),
}

/// Has tokens reviewed by the apiserver, and remembers the answers.
pub(super) struct TokenAuthenticator {
    reviewer: Arc<dyn AccessReviewer>,
    cache_ttl: Duration,
    /// Tokens are remembered only as what this key makes of them: a dump of the memory holds no credentials, and
    /// nobody can choose what the map's keys look like.
    key: hmac::Key,
    reviews: Reviews<[u8; 32], Option<UserInfo>>,
}

impl TokenAuthenticator {
    pub(super) fn new(webhook: TokenWebhook) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self {
            reviewer: webhook.reviewer,
            cache_ttl: webhook.cache_ttl,
            key: key.expect("the system has random numbers"),
            reviews: Reviews::new(),
        }
    }

    /// Whose token a request carries; none if it carries none (`bearertoken.Authenticator`).
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<UserInfo>, TokenError> {
        let Some(token) = bearer_token(headers)? else {
            return Ok(None);
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, token.as_bytes()).as_ref());
        let user = self.reviews.get(digest, || {
            let (reviewer, token, holds) = (self.reviewer.clone(), token.to_owned(), self.cache_ttl);
            async move { Ok((reviewer.review_token(&token).await?, holds)) }
        });
        user.await?.map(Some).ok_or(TokenError::Invalid)
    }
}

fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, TokenError> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| TokenError::Invalid)?;
    let mut parts = value.trim().splitn(3, ' ');
    let is_bearer = parts.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
    Ok(parts.next().filter(|token| is_bearer && !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_as_upstream_finds_them() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("  BEARER abc  ", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            assert_eq!(bearer_token(&headers).unwrap(), expected, "{header:?}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()).unwrap(), None);
    }
}
