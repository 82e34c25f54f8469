//! The server's side of TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client_ca::RequestClientCert;
use super::{Reloading, TlsError, choices};

/// How the API is served over TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The serving certificate; read again when it changes.
    pub certificate: CertificatePair,
    /// The oldest version spoken.
    pub min_version: TlsMinVersion,
    /// Cipher suites of TLS 1.2 by Go's names; empty for the library's own choice.
    pub cipher_suites: Vec<String>,
    /// Key exchanges by their numbers in TLS, the preferred one first; empty for the library's own choice.
    pub curve_preferences: Vec<u16>,
}

/// A certificate and its key, in PEM. Both may be in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePair {
    /// The certificate, followed by its intermediates.
    pub cert_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
}

/// The oldest TLS version spoken (`tlsMinVersion` in the configuration). Nothing before 1.2 exists here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// The cryptography used here, whatever the process uses elsewhere.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Does handshakes.
pub(crate) struct TlsServer {
    acceptor: TlsAcceptor,
    certificate: Arc<ServingCertificate>,
}

impl TlsServer {
    pub(crate) fn new(options: TlsOptions, wants_client_certificates: bool) -> Result<Self, TlsError> {
        let chosen = choices::provider(&options)?;
        let CertificatePair { cert_file, key_file } = options.certificate;
        let files = Reloading::load(vec![cert_file, key_file], parse_pair)?;
        let certificate = Arc::new(ServingCertificate(files));
        let versions: &[_] = match options.min_version {
            TlsMinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsMinVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(chosen.clone()).with_protocol_versions(versions)?;
        let builder = if wants_client_certificates {
            builder.with_client_cert_verifier(Arc::new(RequestClientCert(chosen)))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: Arc::new(config).into(), certificate })
    }

    /// The certificate that it serves with.
    pub(crate) fn certificate(&self) -> Arc<ServingCertificate> {
        self.certificate.clone()
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.certificate.0.refresh().await;
        self.acceptor.accept(stream).await
    }
}

/// The newest certificate that the files hold.
pub(crate) struct ServingCertificate(Reloading<CertifiedKey>);

impl ServingCertificate {
    /// When the one that is served now expires, in seconds since 1970; none if it cannot be read.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        let key = self.0.latest();
        let (_, parsed) = X509Certificate::from_der(key.cert.first()?).ok()?;
        Some(parsed.validity().not_after.timestamp())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.latest())
    }
}

fn parse_pair(contents: &[Vec<u8>]) -> Result<CertifiedKey, String> {
    let [cert, key] = contents else {
        return Err("a certificate and a key are needed".into());
    };
    let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate: the file holds none".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())
}
