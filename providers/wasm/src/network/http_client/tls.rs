//! TLS for outgoing requests.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ConnectError;

/// Which servers guests trust: those that the node trusts, and further authorities that the operator names.
///
/// The node's own list and not one built in, because that is where operators put the authorities of their network and
/// take out those that lost their trust. It is read at the first request that needs it, once for all pods.
#[derive(Debug)]
pub(in crate::network) struct TlsTrust {
    extra: Vec<CertificateDer<'static>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl TlsTrust {
    pub(in crate::network) fn new(extra: Vec<CertificateDer<'static>>) -> Self {
        Self { extra, config: OnceCell::new() }
    }

    /// Begins TLS on a connection to the given host.
    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::HostName)?;
        let connector = TlsConnector::from(self.config().await?.clone());
        connector.connect(name, stream).await.map_err(ConnectError::Tls)
    }

    async fn config(&self) -> Result<&Arc<ClientConfig>, ConnectError> {
        self.config.get_or_try_init(|| async { self.load().await.map_err(ConnectError::Trust) }).await
    }

    async fn load(&self) -> io::Result<Arc<ClientConfig>> {
        let native = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
        if let Some(error) = native.errors.first() {
            tracing::warn!(%error, "some of the node's CA certificates cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(native.certs);
        roots.add_parsable_certificates(self.extra.iter().cloned());
        if roots.is_empty() {
            return Err(io::Error::other(
                "the node has no CA certificates: install the package ca-certificates",
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}
