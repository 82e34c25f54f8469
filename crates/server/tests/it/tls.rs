//! Certificates that change, and versions.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_server::{
    Authentication, Authorization, BuildAuthError, KubeletAuth, TlsMinVersion, load_or_generate_self_signed,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::{TLS12, TLS13};
use tokio::time::sleep;

use crate::pki::{Ca, Subject};
use crate::server::{Setup, TestServer, client_config, write_pair};

/// Longer than the period at which changed files are noticed.
const NOTICED: Duration = Duration::from_millis(1100);

#[tokio::test]
async fn a_new_serving_certificate_is_taken_over_and_a_broken_one_is_not() {
    let server = TestServer::start(Setup::default()).await;
    let mut admin = server.admin().await;
    let new_ca = Ca::new("new servers");
    let trusts_new = || client_config(&new_ca, Some(&server.client_ca.client("admin")), "http/1.1");
    assert!(server.tls(trusts_new()).await.is_err());

    fs::write(&server.files.certificate.key_file, "half-written").unwrap();
    sleep(NOTICED).await;
    server.admin().await;
    assert!(server.tls(trusts_new()).await.is_err());

    write_pair(&server.files.certificate, &new_ca.server());
    sleep(NOTICED).await;
    server.tls(trusts_new()).await.unwrap();
    assert_eq!(admin.get("/pods").await.status, 200, "old connections stay");
}

#[tokio::test]
async fn how_long_the_certificate_is_still_valid_is_told() {
    let server = TestServer::start(Setup::default()).await;
    let left = async || {
        let body = server.admin().await.get("/metrics").await.body;
        let value = |line: &str| {
            line.strip_prefix("kubelet_certificate_manager_server_ttl_seconds ")?.parse::<f64>().ok()
        };
        body.lines().find_map(value).expect("the metric")
    };
    assert!(left().await > 200.0);
    let names = &["localhost"];
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let not_after = SystemTime::now() + Duration::from_secs(200);
    let short = Subject { usage, names, not_after, ..Subject::client("localhost") };
    write_pair(&server.files.certificate, &server.server_ca.sign(&short));
    sleep(NOTICED).await;
    let left = left().await;
    assert!((100.0..=200.0).contains(&left), "{left}");
}

#[tokio::test]
async fn a_new_client_ca_counts_at_once_even_on_old_connections() {
    let server = TestServer::start(Setup::default()).await;
    let new_ca = Ca::new("new clients");
    let mut old = server.admin().await;
    let mut new = server.http1(Some(&new_ca.client("admin"))).await;
    assert_eq!((old.get("/pods").await.status.as_u16(), new.get("/pods").await.status.as_u16()), (200, 401));

    fs::write(&server.files.client_ca, "").unwrap();
    sleep(NOTICED).await;
    assert_eq!(old.get("/pods").await.status, 200, "an empty file is a mistake, and not taken over");

    fs::write(&server.files.client_ca, format!("{}{}", server.client_ca.pem, new_ca.pem)).unwrap();
    sleep(NOTICED).await;
    assert_eq!((old.get("/pods").await.status.as_u16(), new.get("/pods").await.status.as_u16()), (200, 200));

    fs::write(&server.files.client_ca, &new_ca.pem).unwrap();
    sleep(NOTICED).await;
    assert_eq!((old.get("/pods").await.status.as_u16(), new.get("/pods").await.status.as_u16()), (401, 200));
}

#[tokio::test]
async fn the_oldest_version_can_be_set() {
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    for (min_version, allows_12) in [(TlsMinVersion::Tls12, true), (TlsMinVersion::Tls13, false)] {
        let server = TestServer::start(Setup { min_version, ..Setup::default() }).await;
        for (versions, allowed) in [(&[&TLS12], allows_12), (&[&TLS13], true)] {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(server.server_ca.certificate()).unwrap();
            let config = rustls::ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            assert_eq!(server.tls(config).await.is_ok(), allowed, "{min_version:?} {versions:?}");
        }
    }
}

#[tokio::test]
async fn ciphers_can_be_chosen() {
    let cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".to_owned()];
    let server = TestServer::start(Setup { cipher_suites, ..Setup::default() }).await;
    let mut config = server.client_config(None, "http/1.1");
    let mut provider = rustls::crypto::ring::default_provider();
    let ecdsa = rustls::crypto::ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    provider.cipher_suites = vec![ecdsa];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.server_ca.certificate()).unwrap();
    let other = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(server.tls(other).await.is_err(), "not the one that was chosen");
    config.alpn_protocols.clear();
    assert!(server.tls(config).await.is_ok());
}

#[tokio::test]
async fn a_resumed_session_is_still_somebody_and_still_checked() {
    let server = TestServer::start(Setup::default()).await;
    let admin = server.client_ca.client("admin");
    // One configuration, so that the second connection resumes the first.
    let config = server.client_config(Some(&admin), "http/1.1");
    for round in 0..3 {
        let stream = server.tls(config.clone()).await.unwrap();
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let mut client = crate::server::Http1::over(stream).await;
        let expected = if round == 2 { 401 } else { 200 };
        assert_eq!(client.get("/pods").await.status, expected);
        assert_eq!(resumed, round > 0);
        if round == 1 {
            fs::write(&server.files.client_ca, Ca::new("others").pem).unwrap();
            sleep(NOTICED).await;
        }
    }
}

#[test]
fn bad_settings_are_noticed_at_the_start() {
    let build = |authentication| KubeletAuth::new("node-1", authentication, Authorization::AlwaysAllow);
    assert!(matches!(build(Authentication::default()), Err(BuildAuthError::NoMethod)));
    let missing =
        Authentication { client_ca_file: Some("/nonexistent/ca.crt".into()), ..Authentication::default() };
    let error = build(missing).unwrap_err();
    assert!(error.to_string().starts_with(r#"cannot read "/nonexistent/ca.crt": "#), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let pair = load_or_generate_self_signed(directory.path(), "node-1").unwrap();
    let not_a_ca = Authentication { client_ca_file: Some(pair.key_file), ..Authentication::default() };
    let error = build(not_a_ca).unwrap_err();
    assert!(error.to_string().ends_with(": it holds no certificate"), "{error}");
}
