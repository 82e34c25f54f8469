//! A certificate authority of our own, and what it signs.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::scratch::Scratch;

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and key.
    pub files: Pair,
}

impl Authority {
    /// Makes one, and writes it to the folder.
    pub fn new(folder: &Scratch) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "coracle-tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let files = write(folder, "ca", &certificate.pem(), &key)?;
        Ok(Self { issuer: Issuer::new(params, key), files })
    }

    /// A certificate for a client: a user in a group.
    pub fn client(&self, folder: &Scratch, user: &str, group: &str) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(folder, &user.replace(':', "-"), params)
    }

    /// A certificate for a server with these names and addresses.
    pub fn server(&self, folder: &Scratch, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<Pair> {
        let names = names.iter().map(|name| (*name).to_owned());
        let subjects: Vec<String> = names.chain(addresses.iter().map(IpAddr::to_string)).collect();
        let mut params = CertificateParams::new(subjects)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(folder, name, params)
    }

    fn sign(&self, folder: &Scratch, name: &str, params: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate =
            params.signed_by(&key, &self.issuer).with_context(|| format!("cannot sign {name}"))?;
        write(folder, name, &certificate.pem(), &key)
    }
}

/// The two halves of a key without a certificate, as files in PEM.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// What signs.
    pub private: PathBuf,
    /// What checks.
    pub public: PathBuf,
}

/// A key for service-account tokens.
pub fn signing_key(folder: &Scratch, name: &str) -> Result<SigningKey> {
    let key = KeyPair::generate()?;
    Ok(SigningKey {
        private: folder.write(format!("certificates/{name}.key"), key.serialize_pem())?,
        public: folder.write(format!("certificates/{name}.pub"), key.public_key_pem())?,
    })
}

fn write(folder: &Scratch, name: &str, certificate: &str, key: &KeyPair) -> Result<Pair> {
    Ok(Pair {
        certificate: folder.write(format!("certificates/{name}.crt"), certificate)?,
        key: folder.write(format!("certificates/{name}.key"), key.serialize_pem())?,
    })
}
