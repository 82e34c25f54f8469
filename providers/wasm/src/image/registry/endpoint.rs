//! One server of a registry, during one pull.

use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::auth::{self, Authorization, Challenge, Credentials};
use super::hosts::Host;
use super::{BlobStream, MAX_MANIFEST_BYTES, RawManifest, RegistryError, read_at_most};
use crate::image::digest::Digest;
use crate::image::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::image::reference::Version;

/// A server, and what it has given this pull to be let in.
pub(super) struct Endpoint {
    client: Client,
    host: Host,
    repository: String,
    /// Which registry a mirror stands in for.
    namespace: Option<String>,
    credentials: Credentials,
    authorization: Option<Authorization>,
}

impl Endpoint {
    pub(super) fn new(
        client: Client,
        host: Host,
        repository: &str,
        namespace: Option<&str>,
        credentials: Credentials,
    ) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { client, host, repository: repository.to_owned(), namespace, credentials, authorization: None }
    }

    /// What may be asked of it.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Fetches the manifest or index that `version` names; by digest, it is checked against that.
    pub(super) async fn manifest(&mut self, version: &Version) -> Result<RawManifest, RegistryError> {
        let name = match version {
            Version::Tag(tag) => tag.as_str(),
            Version::Digest(digest) => digest.as_str(),
        };
        let url = self.url("manifests", name);
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

    /// Starts to fetch a blob from its byte `offset` on.
    pub(super) async fn blob(&mut self, digest: &Digest, offset: u64) -> Result<BlobStream, RegistryError> {
        let url = self.url("blobs", digest.as_str());
        let request = |client: &Client| match offset {
            0 => client.get(&url),
            _ => client.get(&url).header(RANGE, format!("bytes={offset}-")),
        };
        let response = self.get(request).await.map_err(|error| match error {
            RegistryError::NotFound => RegistryError::BlobNotFound(digest.clone()),
            other => other,
        })?;
        // A server that knows no ranges sends everything again.
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if !begins_at(&response, offset) => {
                return Err(RegistryError::Refused("it sent another part than it was asked for".to_owned()));
            }
            StatusCode::PARTIAL_CONTENT => 0,
            _ => offset,
        };
        Ok(BlobStream { response, skip })
    }

    fn url(&self, kind: &str, name: &str) -> String {
        let url = format!("{}/{}/{kind}/{name}", self.host.api, self.repository);
        match &self.namespace {
            Some(namespace) => format!("{url}?ns={namespace}"),
            None => url,
        }
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
        let is_https = self.host.api.starts_with("https:");
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
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.credentials.refused()),
            status => Err(RegistryError::refused(status, response).await),
        }
    }
}

/// Whether an answer is the part from `offset` on (RFC 9110, "Content-Range").
fn begins_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(offset)
}
