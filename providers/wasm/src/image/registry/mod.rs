//! Talks to registries: the pulling half of the OCI distribution specification.
//!
//! A [`Session`] is one pull: it begins without tokens and takes them with it when it ends, so that no pod ever uses
//! what another pod's credentials have got. Everything that is read has a limit: what answers is a stranger.

mod auth;
mod error;

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::RegistryAuth;
use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use tokio::sync::OnceCell;

use super::digest::Digest;
use super::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::reference::{Reference, Version};
use auth::{Authorization, Challenge, Credentials};
pub(super) use error::RegistryError;

/// A manifest is read into memory: a longer one would be for filling that. Registries stop at the same size.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// More redirects than this are a circle.
const MAX_REDIRECTS: usize = 5;

/// How registries are reached. Connections are shared by all pulls, credentials by none.
pub(super) struct Registries {
    plain_http: Vec<String>,
    connect_timeout: Duration,
    stall_timeout: Duration,
    /// Made on first use: certificates of the node are read for it.
    remote: OnceCell<Client>,
    local: OnceCell<Client>,
}

/// One pull from one repository.
pub(super) struct Session {
    client: Client,
    /// `https://host:port/v2/<repository>`.
    base: String,
    repository: String,
    credentials: Credentials,
    authorization: Option<Authorization>,
}

/// A manifest or an index, as the registry sent it.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) content_type: Option<String>,
}

/// The body of a blob. It is for the reader to check it against the digest.
pub(super) struct BlobStream(Response);

impl Registries {
    /// Registries in `plain_http` (`host` or `host:port`) and on this machine are spoken to without TLS.
    pub(super) fn new(plain_http: Vec<String>, connect_timeout: Duration, stall_timeout: Duration) -> Self {
        let (remote, local) = (OnceCell::new(), OnceCell::new());
        Self { plain_http, connect_timeout, stall_timeout, remote, local }
    }

    /// Begins a pull from the repository of `reference`.
    pub(super) async fn session(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Session, RegistryError> {
        let scheme = if self.is_plain_http(reference) { "http" } else { "https" };
        Ok(Session {
            client: self.client(reference.is_loopback()).await?,
            base: format!("{scheme}://{}/v2/{}", reference.host(), reference.repository()),
            repository: reference.repository().to_owned(),
            credentials: Credentials::new(auth),
            authorization: None,
        })
    }

    /// As containerd does: TLS on this machine only on its own port.
    fn is_plain_http(&self, reference: &Reference) -> bool {
        let host = reference.host();
        self.plain_http.iter().any(|plain| plain == host)
            || (reference.is_loopback() && !host.ends_with(":443"))
    }

    async fn client(&self, is_loopback: bool) -> Result<Client, RegistryError> {
        let builder = Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.stall_timeout)
            .redirect(redirect::Policy::custom(follow));
        let (cell, builder) = match is_loopback {
            // A proxy's loopback is another machine's.
            true => (&self.local, builder.no_proxy()),
            false => (&self.remote, builder),
        };
        let build = || async {
            let tls = tokio::task::spawn_blocking(tls_config).await;
            let tls = tls.map_err(|e| RegistryError::Client(e.to_string()))??;
            let client = builder.tls_backend_preconfigured(tls).build();
            client.map_err(|e| RegistryError::Client(error::root_cause(&e)))
        };
        cell.get_or_try_init(build).await.cloned()
    }
}

/// The node's trust store, and no setting of the process that other code might change.
fn tls_config() -> Result<rustls::ClientConfig, RegistryError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| RegistryError::Client(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match check_redirect(attempt.previous(), attempt.url()) {
        Ok(()) => attempt.follow(),
        Err(reason) => attempt.error(reason),
    }
}

/// Registries send readers of blobs elsewhere, but never from an encrypted connection to an open one.
fn check_redirect(previous: &[Url], next: &Url) -> Result<(), &'static str> {
    if previous.len() > MAX_REDIRECTS {
        return Err("too many redirects");
    }
    let was_encrypted = previous.last().is_some_and(|url| url.scheme() == "https");
    if was_encrypted && next.scheme() != "https" {
        return Err("a redirect from https to http");
    }
    Ok(())
}

impl Session {
    /// Fetches the manifest or index that `version` names; by digest, it is checked against that.
    pub(super) async fn manifest(&mut self, version: &Version) -> Result<RawManifest, RegistryError> {
        let name = match version {
            Version::Tag(tag) => tag.as_str(),
            Version::Digest(digest) => digest.as_str(),
        };
        let url = format!("{}/manifests/{name}", self.base);
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let mut response = self.get(|client| client.get(&url).header(ACCEPT, &accept)).await?;

        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type =
            content_type.map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = read_at_most(&mut response, MAX_MANIFEST_BYTES).await?;
        let digest = Digest::of(&bytes);
        match version {
            Version::Digest(expected) if *expected != digest => {
                Err(RegistryError::WrongManifest(expected.clone()))
            }
            _ => Ok(RawManifest { bytes, digest, content_type }),
        }
    }

    /// Starts to fetch a blob.
    pub(super) async fn blob(&mut self, digest: &Digest) -> Result<BlobStream, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        self.get(|client| client.get(&url)).await.map(BlobStream).map_err(|error| match error {
            RegistryError::NotFound => RegistryError::BlobNotFound(digest.clone()),
            other => other,
        })
    }

    /// Sends a request, with what the registry asks for to let us in.
    async fn get(&mut self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response, RegistryError> {
        if self.authorization.is_none() {
            self.authorization = self.credentials.token();
        }
        let response = self.send(&request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.accept(response).await;
        }
        // Either the first request, or a token that has expired since.
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::strongest(challenges.iter().filter_map(|value| value.to_str().ok()));
        let Some(challenge) = challenge else { return Err(self.credentials.refused()) };
        let is_https = self.base.starts_with("https:");
        let authorization =
            auth::answer(&self.client, challenge, &self.credentials, &self.repository, is_https).await?;
        self.authorization = Some(authorization);
        let response = self.send(&request).await?;
        self.accept(response).await
    }

    async fn send(&self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response, RegistryError> {
        let mut request = request(&self.client);
        if let Some(authorization) = &self.authorization {
            request = authorization.apply(request);
        }
        request.send().await.map_err(RegistryError::transport)
    }

    async fn accept(&self, response: Response) -> Result<Response, RegistryError> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.credentials.refused()),
            status => Err(RegistryError::refused(status, response).await),
        }
    }
}

impl BlobStream {
    /// The next piece, or none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, RegistryError> {
        self.0.chunk().await.map_err(RegistryError::transport)
    }
}

/// Reads a body into memory.
async fn read_at_most(response: &mut Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(RegistryError::transport)? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(RegistryError::TooLong(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_encrypted() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (previous, next, allowed) in [
            ("https://a.example.com/", "https://b.example.com/", true),
            ("https://a.example.com/", "http://a.example.com/", false),
            ("http://a.example.com/", "http://b.example.com/", true),
            ("http://a.example.com/", "https://a.example.com/", true),
        ] {
            let checked = check_redirect(&[url(previous)], &url(next));
            assert_eq!(checked.is_ok(), allowed, "{previous} -> {next}");
        }
    }

    #[test]
    fn tls_is_left_out_only_where_that_was_said_or_on_this_machine() {
        let second = Duration::from_secs(1);
        let registries = Registries::new(vec!["plain.example.com:5000".to_owned()], second, second);
        for (reference, is_plain) in [
            ("plain.example.com:5000/a", true),
            ("plain.example.com/a", false),
            ("other.example.com:5000/a", false),
            ("nginx", false),
            ("localhost:5000/a", true),
            ("127.0.0.2/a", true),
            ("[::1]:5000/a", true),
            ("localhost:443/a", false),
        ] {
            let reference = Reference::parse(reference).unwrap();
            assert_eq!(registries.is_plain_http(&reference), is_plain, "{reference}");
        }
    }
}
