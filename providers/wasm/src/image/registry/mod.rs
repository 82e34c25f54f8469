//! Talks to registries: the pulling half of the OCI distribution specification.
//!
//! A [`Session`] is one pull: it begins without tokens and takes them with it when it ends, so that no pod ever uses
//! what another pod's credentials have got. Everything that is read has a limit: what answers is a stranger.

mod auth;
mod clients;
mod endpoint;
mod error;
mod hosts;

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes};
use coracle_provider::RegistryAuth;
use reqwest::Response;

use super::digest::Digest;
use super::reference::{Reference, Version, is_loopback};
use auth::Credentials;
use clients::Clients;
use endpoint::Endpoint;
pub(super) use error::RegistryError;
use hosts::{Host, HostsError};

/// A manifest is read into memory: a longer one would be for filling that. Registries stop at the same size.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// How registries are reached. Connections are shared by all pulls, credentials by none.
pub(super) struct Registries {
    plain_http: Vec<String>,
    hosts_dir: Option<PathBuf>,
    clients: Clients,
}

/// One pull from one repository, which may be on several servers.
pub(super) struct Session {
    endpoints: Vec<Endpoint>,
}

/// A manifest or an index, as the registry sent it.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) content_type: Option<String>,
}

/// The body of a blob. It is for the reader to check it against the digest.
pub(super) struct BlobStream {
    response: Response,
    /// How much of what comes was there before.
    skip: u64,
}

impl Registries {
    /// Registries in `plain_http` (`host` or `host:port`) and on this machine are spoken to without TLS. `hosts_dir`
    /// is a folder as containerd's `certs.d`.
    pub(super) fn new(
        plain_http: Vec<String>,
        hosts_dir: Option<PathBuf>,
        connect_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        Self { plain_http, hosts_dir, clients: Clients::new(connect_timeout, stall_timeout) }
    }

    /// Begins a pull from the repository of `reference`.
    pub(super) async fn session(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Session, RegistryError> {
        let mut endpoints = Vec::new();
        for host in self.hosts(reference).await? {
            // The credentials are for the registry that the reference names; a mirror is asked without them.
            let credentials = Credentials::new(auth.filter(|_| !host.is_mirror));
            let namespace = (host.authority != reference.host()).then(|| reference.domain());
            let client = self.clients.client(&host).await?;
            let repository = reference.repository();
            endpoints.push(Endpoint::new(client, host, repository, namespace, credentials));
        }
        Ok(Session { endpoints })
    }

    async fn hosts(&self, reference: &Reference) -> Result<Vec<Host>, RegistryError> {
        let scheme = if self.is_plain_http(reference.host()) { "http" } else { "https" };
        let registry = Host::plain(scheme, reference.host());
        let Some(root) = self.hosts_dir.clone() else { return Ok(vec![registry]) };
        let domain = reference.domain().to_owned();
        let read = tokio::task::spawn_blocking(move || hosts::hosts(&root, &domain, registry)).await;
        Ok(read.map_err(|e| RegistryError::Client(e.to_string()))??)
    }

    /// As containerd does: TLS on this machine only on its own port.
    fn is_plain_http(&self, host: &str) -> bool {
        self.plain_http.iter().any(|plain| plain == host) || (is_loopback(host) && !host.ends_with(":443"))
    }
}

impl Session {
    /// Fetches the manifest or index that `version` names from the first server that has it.
    pub(super) async fn manifest(&mut self, version: &Version) -> Result<RawManifest, RegistryError> {
        let mut refused = RegistryError::NoServer;
        for endpoint in &mut self.endpoints {
            let may_be_asked = match version {
                Version::Tag(_) => endpoint.host().can_resolve,
                Version::Digest(_) => endpoint.host().can_pull,
            };
            if !may_be_asked {
                continue;
            }
            match endpoint.manifest(version).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => refused = pass_over(endpoint, error),
            }
        }
        Err(refused)
    }

    /// Starts to fetch a blob, from its byte `offset` on, from the first server that has it.
    pub(super) async fn blob(&mut self, digest: &Digest, offset: u64) -> Result<BlobStream, RegistryError> {
        let mut refused = RegistryError::NoServer;
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| endpoint.host().can_pull) {
            match endpoint.blob(digest, offset).await {
                Ok(blob) => return Ok(blob),
                Err(error) => refused = pass_over(endpoint, error),
            }
        }
        Err(refused)
    }
}

/// The last server's error is the one to show; those of mirrors before it are for the log.
fn pass_over(endpoint: &Endpoint, error: RegistryError) -> RegistryError {
    if endpoint.host().is_mirror {
        tracing::info!(mirror = endpoint.host().authority, "an image {error}; the next server is asked");
    }
    error
}

impl BlobStream {
    /// The next piece, or none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while let Some(mut piece) = self.response.chunk().await.map_err(RegistryError::transport)? {
            let known = usize::try_from(self.skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            piece.advance(known);
            self.skip -= known as u64;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
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
    fn tls_is_left_out_only_where_that_was_said_or_on_this_machine() {
        let second = Duration::from_secs(1);
        let registries = Registries::new(vec!["plain.example.com:5000".to_owned()], None, second, second);
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
            assert_eq!(registries.is_plain_http(reference.host()), is_plain, "{reference}");
        }
    }
}
