//! A serving certificate for kubelets that were given none.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{CertificatePair, TlsError};

/// Clocks differ; a certificate counts from this long ago.
const ALLOWED_SKEW: Duration = Duration::from_secs(60 * 60);

/// How long a certificate counts.
const MAX_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The pair `kubelet.crt` and `kubelet.key` in `cert_dir`; generated and written if it is not there yet
/// (`InitializeTLS`). `host_name` is a DNS name or an address. Blocks the thread.
pub fn load_or_generate_self_signed(cert_dir: &Path, host_name: &str) -> Result<CertificatePair, TlsError> {
    let (cert_file, key_file) = (cert_dir.join("kubelet.crt"), cert_dir.join("kubelet.key"));
    match (File::open(&cert_file), File::open(&key_file)) {
        (Ok(_), Ok(_)) => {}
        (Err(_), Ok(_)) => return Err(TlsError::HalfAPair { missing: cert_file, present: key_file }),
        (Ok(_), Err(_)) => return Err(TlsError::HalfAPair { missing: key_file, present: cert_file }),
        (Err(_), Err(_)) => {
            let (cert, key) = generate(host_name).map_err(|error| TlsError::Generate(error.to_string()))?;
            let write = |path: &Path, content: &str, mode| {
                write(path, content, mode).map_err(|source| TlsError::Write { path: path.into(), source })
            };
            fs::create_dir_all(cert_dir)
                .map_err(|source| TlsError::Write { path: cert_dir.into(), source })?;
            write(&key_file, &key, 0o600)?;
            write(&cert_file, &cert, 0o644)?;
        }
    }
    Ok(CertificatePair { cert_file, key_file })
}

/// A certificate, followed by that of a CA whose key is thrown away, and the certificate's key
/// (`GenerateSelfSignedCertKey`).
fn generate(host_name: &str) -> Result<(String, String), rcgen::Error> {
    let now = SystemTime::now();
    let stamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let params = |names: Vec<String>, common_name: String| {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = (now - ALLOWED_SKEW).into();
        params.not_after = (now - ALLOWED_SKEW + MAX_AGE).into();
        Ok::<_, rcgen::Error>(params)
    };

    let mut ca = params(vec![], format!("{host_name}-ca@{stamp}"))?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut leaf = params(vec![host_name.into()], format!("{host_name}@{stamp}"))?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &issuer)?;
    Ok((cert.pem() + &ca_cert.pem(), key.serialize_pem()))
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    // A file left over from a crash keeps its mode.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{TlsMinVersion, TlsOptions, TlsServer};

    #[test]
    fn a_pair_is_generated_once_and_can_be_served() {
        let directory = tempfile::tempdir().unwrap();
        let cert_dir = directory.path().join("pki");
        for host_name in ["node-1.example.com", "10.0.0.1", "fd00::1"] {
            let pair = load_or_generate_self_signed(&cert_dir, host_name).unwrap();
            let content = (fs::read(&pair.cert_file).unwrap(), fs::read(&pair.key_file).unwrap());
            assert_eq!(load_or_generate_self_signed(&cert_dir, host_name).unwrap(), pair);
            assert_eq!(content, (fs::read(&pair.cert_file).unwrap(), fs::read(&pair.key_file).unwrap()));
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&pair.cert_file), mode(&pair.key_file)), (0o644, 0o600));
            let options = TlsOptions {
                certificate: pair.clone(),
                min_version: TlsMinVersion::Tls12,
                cipher_suites: vec![],
                curve_preferences: vec![],
            };
            TlsServer::new(options, false).map(drop).unwrap();
            fs::remove_file(&pair.cert_file).unwrap();
            let half = load_or_generate_self_signed(&cert_dir, host_name);
            assert!(matches!(half, Err(TlsError::HalfAPair { .. })), "{half:?}");
            fs::remove_file(&pair.key_file).unwrap();
        }
    }
}
