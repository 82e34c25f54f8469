//! Credentials, and how a registry asks for them.
//!
//! RFC 7235 challenges; tokens by the distribution project's token and OAuth2 specifications. The documents that a
//! token server sends are opaque: nothing of them is shown or kept beyond the pull.

use coracle_provider::RegistryAuth;
use http_auth::{ChallengeRef, parse_challenges};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use super::error::RegistryError;
use super::read_at_most;

/// A token is read into memory.
const MAX_TOKEN_BYTES: u64 = 256 * 1024;

/// What the token server knows this client as.
const CLIENT_ID: &str = "coracle";

/// What a pull brings with it.
pub(super) enum Credentials {
    Anonymous,
    Password {
        username: String,
        password: String,
    },
    /// A refresh token: good for tokens, not for requests.
    Identity {
        token: String,
    },
    /// A token for requests.
    Registry {
        token: String,
    },
}

/// The value of a request's `Authorization`.
#[derive(Clone)]
pub(super) enum Authorization {
    Basic { username: String, password: String },
    Bearer(String),
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Credentials {
    /// The order is that of container runtimes: a token wins over a password.
    pub(super) fn new(auth: Option<&RegistryAuth>) -> Self {
        let Some(auth) = auth else { return Self::Anonymous };
        if !auth.registry_token.0.is_empty() {
            Self::Registry { token: auth.registry_token.0.clone() }
        } else if !auth.identity_token.0.is_empty() {
            Self::Identity { token: auth.identity_token.0.clone() }
        } else if !auth.username.is_empty() || !auth.password.0.is_empty() {
            Self::Password { username: auth.username.clone(), password: auth.password.0.clone() }
        } else {
            Self::Anonymous
        }
    }

    /// What can be sent without being asked.
    pub(super) fn token(&self) -> Option<Authorization> {
        match self {
            Self::Registry { token } => Some(Authorization::Bearer(token.clone())),
            _ => None,
        }
    }

    /// The error for a registry that does not take them.
    pub(super) fn refused(&self) -> RegistryError {
        match self {
            Self::Anonymous => RegistryError::CredentialsNeeded,
            _ => RegistryError::CredentialsRefused,
        }
    }
}

impl Authorization {
    /// Adds the header, marked so that no log shows it.
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic { username, password } => request.basic_auth(username, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

impl Challenge {
    /// The one to answer: a token is better than sending the password with every request.
    pub(super) fn strongest<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let challenges: Vec<Self> = headers
            .filter_map(|header| parse_challenges(header).ok())
            .flatten()
            .filter_map(|challenge| Self::read(&challenge))
            .collect();
        let bearer = challenges.iter().position(|challenge| matches!(challenge, Self::Bearer { .. }));
        challenges.into_iter().nth(bearer.unwrap_or(0))
    }

    fn read(challenge: &ChallengeRef<'_>) -> Option<Self> {
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then_some(Self::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    }
}

/// Gets what a registry asks for. Over an encrypted connection, a password is not sent on over an open one.
pub(super) async fn answer(
    client: &Client,
    challenge: Challenge,
    credentials: &Credentials,
    repository: &str,
    is_https: bool,
) -> Result<Authorization, RegistryError> {
    let (realm, service, scope) = match (challenge, credentials) {
        (Challenge::Basic, Credentials::Password { username, password }) => {
            let (username, password) = (username.clone(), password.clone());
            return Ok(Authorization::Basic { username, password });
        }
        (Challenge::Basic, _) | (_, Credentials::Registry { .. }) => return Err(credentials.refused()),
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
    };
    let mut realm = Url::parse(&realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or(RegistryError::Auth("its registry names a token server that is no URL"))?;
    if is_https && realm.scheme() != "https" {
        return Err(RegistryError::Auth("its registry names a token server without TLS"));
    }
    let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));

    let request = if let Credentials::Identity { token } = credentials {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scope)
            .append_pair("refresh_token", token)
            .finish();
        client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
    } else {
        if let Some(service) = &service {
            realm.query_pairs_mut().append_pair("service", service);
        }
        realm.query_pairs_mut().append_pair("scope", &scope);
        let request = client.get(realm);
        match credentials {
            Credentials::Password { username, password } => request.basic_auth(username, Some(password)),
            _ => request,
        }
    };
    let mut response = request.send().await.map_err(RegistryError::transport)?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            return Err(credentials.refused());
        }
        status => return Err(RegistryError::refused(status, response).await),
    }
    let body = read_at_most(&mut response, MAX_TOKEN_BYTES).await?;
    read_token(&body).ok_or(RegistryError::Auth("the token server of its registry sent no token"))
}

fn read_token(body: &[u8]) -> Option<Authorization> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Token = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty()).map(Authorization::Bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_whatever_the_order() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example.com/t".to_owned(),
            service: Some("registry".to_owned()),
            scope: Some("repository:a:pull,push".to_owned()),
        };
        let one = "Basic realm=\"x\", Bearer realm=\"https://auth.example.com/t\",service=\"registry\",\
                   scope=\"repository:a:pull,push\"";
        assert_eq!(Challenge::strongest([one].into_iter()), Some(bearer));
        assert_eq!(Challenge::strongest(["BASIC realm=\"x\""].into_iter()), Some(Challenge::Basic));
        for nothing in ["", "Negotiate", "Bearer service=\"no realm\"", "\u{7f}"] {
            assert_eq!(Challenge::strongest([nothing].into_iter()), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_token_may_have_either_name() {
        let read = |body: &str| match read_token(body.as_bytes()) {
            Some(Authorization::Bearer(token)) => Some(token),
            _ => None,
        };
        assert_eq!(read("{\"token\": \"a\", \"access_token\": \"b\"}").as_deref(), Some("a"));
        assert_eq!(read("{\"access_token\": \"b\"}").as_deref(), Some("b"));
        assert_eq!(read("{\"token\": \"\"}"), None);
        assert_eq!(read("<html>"), None);
    }

    #[tokio::test]
    async fn a_password_for_an_encrypted_registry_is_not_sent_in_the_clear() {
        let second = std::time::Duration::from_secs(1);
        let clients = super::super::Clients::new(second, second);
        let client = clients.client(&super::super::Host::plain("http", "localhost")).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let challenge = Challenge::Bearer {
            realm: format!("http://{}/token", listener.local_addr().unwrap()),
            service: None,
            scope: None,
        };
        let credentials = Credentials::Password { username: "me".to_owned(), password: "s3cret".to_owned() };
        let refused = answer(&client, challenge, &credentials, "a", true).await.err().unwrap();
        assert!(refused.to_string().contains("without TLS"), "{refused}");
        let nobody = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
        assert!(nobody.is_err(), "somebody called");
    }
}
