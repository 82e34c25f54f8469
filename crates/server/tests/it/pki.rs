//! Authorities, and what they sign.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// Its own certificate, and those above it but the root.
    intermediates: Vec<CertificateDer<'static>>,
}

/// A certificate with its chain, and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// What a certificate says.
pub(crate) struct Subject<'a> {
    pub(crate) common_name: Option<&'a str>,
    pub(crate) organizations: &'a [&'a str],
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) names: &'a [&'a str],
}

impl<'a> Subject<'a> {
    /// A client certificate that is good for a day.
    pub(crate) fn client(common_name: &'a str) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: Some(common_name),
            organizations: &[],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            not_before: now - DAY,
            not_after: now + DAY,
            names: &[],
        }
    }

    pub(crate) fn expired(self) -> Self {
        Self { not_before: self.not_before - 2 * DAY, not_after: self.not_after - 2 * DAY, ..self }
    }

    pub(crate) fn not_yet_valid(self) -> Self {
        Self { not_before: self.not_before + 2 * DAY, not_after: self.not_after + 2 * DAY, ..self }
    }

    fn params(&self) -> CertificateParams {
        let names: Vec<String> = self.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        if let Some(common_name) = self.common_name {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        // The library keeps one value of a kind; the same kind under another name makes a second.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        assert!(self.organizations.len() <= kinds.len());
        for (kind, organization) in kinds.into_iter().zip(self.organizations) {
            params.distinguished_name.push(kind, *organization);
        }
        params.extended_key_usages = vec![self.usage.clone()];
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params
    }
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = ca_params(name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, intermediates: vec![] }
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = ca_params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut intermediates = vec![certificate.der().clone()];
        intermediates.extend(self.intermediates.iter().cloned());
        Self { issuer: Issuer::new(params, key), pem: certificate.pem(), intermediates }
    }

    pub(crate) fn sign(&self, subject: &Subject<'_>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = subject.params().signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.intermediates.iter().cloned());
        Identity {
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    pub(crate) fn client(&self, common_name: &str) -> Identity {
        self.sign(&Subject::client(common_name))
    }

    /// A serving certificate for localhost.
    pub(crate) fn server(&self) -> Identity {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.sign(&Subject { usage, names: &["localhost"], ..Subject::client("localhost") })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

fn ca_params(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params, KeyPair::generate().unwrap())
}
