//! Which ciphers and key exchanges are spoken (`tlsCipherSuites`, `tlsCurvePreferences`).

use std::sync::Arc;

use rustls::crypto::ring::{ALL_KX_GROUPS, cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{NamedGroup, SupportedCipherSuite};

use super::{TlsError, TlsOptions};

/// The suites of TLS 1.2 that there are, by Go's names. Those of 1.3 cannot be chosen, as in Go.
const TLS12_SUITES: [(&str, SupportedCipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// What is spoken: the library's own choice where nothing was chosen. What the library does not have is left out, because
/// nobody is worse off for it; but something has to remain.
pub(super) fn provider(options: &TlsOptions) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = default_provider();
    if !options.cipher_suites.is_empty() {
        let chosen = suites(&options.cipher_suites);
        if chosen.is_empty() {
            return Err(TlsError::Choice {
                what: "tlsCipherSuites",
                chosen: options.cipher_suites.join(","),
            });
        }
        // TLS 1.3 stays.
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(suite));
    }
    if !options.curve_preferences.is_empty() {
        let chosen = groups(&options.curve_preferences);
        if chosen.is_empty() {
            let chosen = options.curve_preferences.iter().map(ToString::to_string).collect::<Vec<_>>();
            return Err(TlsError::Choice { what: "tlsCurvePreferences", chosen: chosen.join(",") });
        }
        provider.kx_groups = chosen;
    }
    Ok(Arc::new(provider))
}

fn suites(names: &[String]) -> Vec<SupportedCipherSuite> {
    let find = |name: &String| TLS12_SUITES.iter().find(|(known, _)| known == name).map(|(_, suite)| *suite);
    names.iter().filter_map(find).collect()
}

/// In the order in which they were chosen.
fn groups(ids: &[u16]) -> Vec<&'static dyn SupportedKxGroup> {
    let find = |id: &u16| ALL_KX_GROUPS.iter().copied().find(|group| group.name() == NamedGroup::from(*id));
    ids.iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertificatePair, TlsMinVersion};

    fn options(cipher_suites: &[&str], curve_preferences: &[u16]) -> TlsOptions {
        TlsOptions {
            certificate: CertificatePair { cert_file: "a".into(), key_file: "b".into() },
            min_version: TlsMinVersion::Tls12,
            cipher_suites: cipher_suites.iter().map(|name| (*name).to_owned()).collect(),
            curve_preferences: curve_preferences.to_vec(),
        }
    }

    #[test]
    fn what_was_chosen_is_spoken_and_nothing_else() {
        let all = provider(&options(&[], &[])).unwrap();
        assert_eq!(all.cipher_suites.len(), default_provider().cipher_suites.len());
        let chosen = provider(&options(
            &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"],
            &[23, 29, 4588],
        ));
        let chosen = chosen.unwrap();
        let tls12: Vec<_> =
            chosen.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).map(|s| s.suite()).collect();
        assert_eq!(tls12, [cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.suite()]);
        assert_eq!(chosen.cipher_suites.len(), 1 + 3, "those of TLS 1.3 stay");
        let groups: Vec<_> = chosen.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [NamedGroup::secp256r1, NamedGroup::X25519]);
    }

    #[test]
    fn a_choice_of_which_nothing_remains_is_refused_by_name() {
        let error = provider(&options(&["TLS_RSA_WITH_AES_128_CBC_SHA"], &[])).unwrap_err().to_string();
        assert!(error.contains("tlsCipherSuites: TLS_RSA_WITH_AES_128_CBC_SHA"), "{error}");
        let error = provider(&options(&[], &[25])).unwrap_err().to_string();
        assert!(error.contains("tlsCurvePreferences: 25"), "{error}");
    }
}
