//! HTTP clients for registries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use super::RegistryError;
use super::error::root_cause;
use super::hosts::Host;
use crate::image::reference::is_loopback;

/// More redirects than this are a circle.
const MAX_REDIRECTS: usize = 5;

/// The clients that pulls share: connections, never credentials.
pub(super) struct Clients {
    connect_timeout: Duration,
    stall_timeout: Duration,
    /// Made on first use: certificates of the node are read for it.
    remote: OnceCell<Client>,
    local: OnceCell<Client>,
}

impl Clients {
    pub(super) fn new(connect_timeout: Duration, stall_timeout: Duration) -> Self {
        Self { connect_timeout, stall_timeout, remote: OnceCell::new(), local: OnceCell::new() }
    }

    /// The client for a server. One with settings of its own gets one of its own: files may have changed.
    pub(super) async fn client(&self, host: &Host) -> Result<Client, RegistryError> {
        if !host.ca.is_empty() || host.dial_timeout.is_some() {
            return self.build(host).await;
        }
        let cell = if is_loopback(&host.authority) { &self.local } else { &self.remote };
        cell.get_or_try_init(|| self.build(host)).await.cloned()
    }

    async fn build(&self, host: &Host) -> Result<Client, RegistryError> {
        let authorities = host.ca.clone();
        let tls = tokio::task::spawn_blocking(move || tls_config(&authorities)).await;
        let tls = tls.map_err(|e| RegistryError::Client(e.to_string()))??;
        let mut builder = Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(host.dial_timeout.unwrap_or(self.connect_timeout))
            .read_timeout(self.stall_timeout)
            .redirect(redirect::Policy::custom(follow))
            .tls_backend_preconfigured(tls);
        // A proxy's loopback is another machine's.
        if is_loopback(&host.authority) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|e| RegistryError::Client(root_cause(&e)))
    }
}

/// The node's trust store with these authorities, and no setting of the process that other code might change.
fn tls_config(authorities: &[PathBuf]) -> Result<rustls::ClientConfig, RegistryError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in authorities {
        add_authorities(&mut roots, path)
            .map_err(|reason| RegistryError::Client(format!("{}: {reason}", path.display())))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| RegistryError::Client(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut is_empty = true;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        is_empty = false;
    }
    if is_empty { Err("it holds no certificate".to_owned()) } else { Ok(()) }
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
}
