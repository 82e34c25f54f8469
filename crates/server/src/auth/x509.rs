//! Client certificates.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_core::ports::UserInfo;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

use crate::tls::{Reloading, TlsError, parse_client_ca};

/// The attribute of a subject that holds a UID (`asn1.X509UID`).
const UID_OID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// The key in `extra` under which a credential is named (`user.CredentialIDKey`).
const CREDENTIAL_ID_KEY: &str = "authentication.kubernetes.io/credential-id";

/// Why a certificate names nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("verifying the client's certificate failed: {0}")]
    Verify(#[from] rustls::Error),
    #[error("the client's certificate cannot be read: {0}")]
    Parse(String),
    #[error("the client's certificate has a bad UID: {0}")]
    Uid(&'static str),
}

/// Believes certificates of the client CAs (`x509.Authenticator`).
pub(super) struct CertificateAuthenticator {
    client_ca: Reloading<Arc<dyn ClientCertVerifier>>,
}

impl CertificateAuthenticator {
    pub(super) fn new(client_ca_file: PathBuf) -> Result<Self, TlsError> {
        Ok(Self { client_ca: Reloading::load(vec![client_ca_file], parse_client_ca)? })
    }

    /// Whose certificate this is; none if there is none, or it has no common name.
    ///
    /// The TLS handshake has proven that the client has the key of the first certificate, and nothing more. That it is
    /// of our CA, meant for clients, and valid now, is checked here for every request: a connection may outlive all three.
    pub(super) async fn authenticate(
        &self,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Option<UserInfo>, CertificateError> {
        let [certificate, intermediates @ ..] = certificates else {
            return Ok(None);
        };
        self.client_ca.refresh().await;
        self.client_ca.latest().verify_client_cert(certificate, intermediates, UnixTime::now())?;
        common_name_user(certificate)
    }
}

/// The user that a certificate's subject names (`CommonNameUserConversion`).
fn common_name_user(certificate: &[u8]) -> Result<Option<UserInfo>, CertificateError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CertificateError::Parse(error.to_string()))?;
    let subject = parsed.subject();
    // Of several names Go takes the last.
    let common_name = subject.iter_common_name().last().and_then(text).filter(|name| !name.is_empty());
    let Some(common_name) = common_name else {
        return Ok(None);
    };
    let uids: Vec<_> = subject.iter_by_oid(&UID_OID).collect();
    let uid = match uids.as_slice() {
        [] => String::new(),
        [uid] => text(uid).filter(|uid| !uid.is_empty()).ok_or(CertificateError::Uid("not a text"))?,
        _ => return Err(CertificateError::Uid("more than one")),
    };
    let fingerprint = ring::digest::digest(&ring::digest::SHA256, certificate);
    let credential_id: String = fingerprint.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(UserInfo {
        username: common_name,
        uid,
        groups: subject.iter_organization().filter_map(text).collect(),
        extra: [(CREDENTIAL_ID_KEY.to_owned(), vec![format!("X509SHA256={credential_id}")])].into(),
    }))
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(Into::into)
}
