//! TLS without looking at certificates: a probe asks whether somebody answers, not who.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::text;

/// HTTP/2, as ALPN names it.
pub(crate) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A connection with TLS.
pub(crate) type Encrypted = TlsStream<Listened>;

/// Why there is none.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// The server answered in HTTP without TLS.
    HttpResponse,
    /// Anything else.
    Other(String),
}

/// Takes any certificate, and offers both versions of HTTP.
pub(crate) fn connector_without_verification() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { schemes }))
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Every connection is new: a session that is resumed would be a check less.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Encrypts a connection.
pub(crate) async fn connect(
    tls: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<Encrypted, TlsError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::Other(format!("tls: {host:?} is no host name")))?;
    let stream = Listened { stream, first: [0; 5], heard: 0 };
    tls.connect(name, stream).into_fallible().await.map_err(|(error, stream)| {
        if stream.first == *b"HTTP/" {
            TlsError::HttpResponse
        } else {
            TlsError::Other(text::io_error(&error))
        }
    })
}

/// A connection that remembers the first bytes it heard: they tell a server that speaks HTTP instead of TLS.
#[derive(Debug)]
pub(crate) struct Listened {
    stream: TcpStream,
    first: [u8; 5],
    heard: usize,
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let (room, news) = (&mut this.first[this.heard..], &buf.filled()[before..]);
        let count = room.len().min(news.len());
        room[..count].copy_from_slice(&news[..count]);
        this.heard += count;
        result
    }
}

impl AsyncWrite for Listened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
