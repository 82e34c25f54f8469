//! Who gets in, to what.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use coracle_core::ports::UserInfo;
use futures::future::join_all;
use rcgen::ExtendedKeyUsagePurpose;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fakes::Mood;
use crate::pki::{Ca, Identity, Subject};
use crate::server::{Setup, TestServer, request};

/// Every path of upstream's `AuthzTestCases`, and some that are none, with what it means: the method, the status for
/// whoever may, and the subresources in the order in which they are tried.
const PATHS: [(&str, &str, u16, &str); 42] = [
    ("GET", "/healthz", 200, "healthz proxy"),
    ("GET", "/healthz/ping", 200, "healthz proxy"),
    ("GET", "/healthz/log", 200, "healthz proxy"),
    ("GET", "/healthz/syncloop", 200, "healthz proxy"),
    ("GET", "/pods", 200, "pods proxy"),
    ("GET", "/pods/", 200, "pods proxy"),
    ("POST", "/pods", 405, "pods proxy"),
    ("GET", "/runningpods", 200, "pods proxy"),
    ("GET", "/runningpods/", 200, "pods proxy"),
    ("POST", "/runningpods/", 405, "pods proxy"),
    ("GET", "/allocatedPods", 404, "pods proxy"),
    ("GET", "/configz", 200, "configz proxy"),
    ("GET", "/flagz", 200, "configz"),
    ("GET", "/statusz", 200, "statusz"),
    ("GET", "/metrics", 200, "metrics"),
    ("GET", "/metrics/cadvisor", 200, "metrics"),
    ("GET", "/metrics/probes", 200, "metrics"),
    ("GET", "/metrics/resource", 200, "metrics"),
    ("GET", "/metrics/slis", 200, "metrics"),
    ("GET", "/metrics/nonsense", 404, "metrics"),
    ("GET", "/stats/", 404, "stats"),
    ("GET", "/stats/summary", 500, "stats"),
    ("POST", "/stats/summary", 500, "stats"),
    ("GET", "/logs", 405, "log"),
    ("GET", "/logs/", 405, "log"),
    ("GET", "/logs/syslog", 405, "log"),
    ("POST", "/checkpoint/ns/pod/c", 404, "checkpoint"),
    ("GET", "/checkpoint/ns/pod/c", 405, "checkpoint"),
    ("GET", "/containerLogs/ns/pod/c", 404, "proxy"),
    ("POST", "/exec/ns/pod/c", 400, "proxy"),
    ("POST", "/exec/ns/pod/uid/c", 400, "proxy"),
    ("POST", "/attach/ns/pod/c", 400, "proxy"),
    ("POST", "/attach/ns/pod/uid/c", 400, "proxy"),
    ("POST", "/run/ns/pod/c", 404, "proxy"),
    ("POST", "/run/ns/pod/uid/c", 404, "proxy"),
    ("POST", "/portForward/ns/pod", 404, "proxy"),
    ("POST", "/portForward/ns/pod/uid", 404, "proxy"),
    ("GET", "/debug/flags/v", 405, "proxy"),
    ("GET", "/debug/pprof/heap", 501, "proxy"),
    ("GET", "/", 404, "proxy"),
    ("GET", "/nonsense", 404, "proxy"),
    // Not the path of the pods, so not served as it, and not judged as it.
    ("GET", "/%70ods", 404, "proxy"),
];

/// What a caller shows.
struct Caller {
    name: &'static str,
    identity: Option<Identity>,
    token: Option<&'static str>,
    /// None if nobody knows them.
    user: Option<&'static str>,
}

fn callers(server: &TestServer) -> Vec<Caller> {
    let ca = &server.client_ca;
    let known = |name, identity: Identity, user| Caller { name, identity: Some(identity), token: None, user };
    let foreign = Ca::new("clients");
    let server_usage = Subject { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Subject::client("admin") };
    let nameless = Subject { common_name: None, organizations: &["system:masters"], ..Subject::client("") };
    vec![
        Caller { name: "no credentials", identity: None, token: None, user: None },
        known("a foreign CA of the same name", foreign.client("admin"), None),
        known("expired", ca.sign(&Subject::client("admin").expired()), None),
        known("not yet valid", ca.sign(&Subject::client("admin").not_yet_valid()), None),
        known("a certificate for servers", ca.sign(&server_usage), None),
        known("a certificate without a name", ca.sign(&nameless), None),
        known("denied", ca.client("stranger"), Some("stranger")),
        known("allowed", ca.client("admin"), Some("admin")),
        known("allowed by an intermediate", ca.intermediate("below").client("admin"), Some("admin")),
        known("allowed the fine-grained", ca.client("monitor"), Some("monitor")),
        known("allowed by the old way", ca.client("classic"), Some("classic")),
        Caller { name: "a good token", identity: None, token: Some("good"), user: Some("monitor") },
        Caller { name: "a bad token", identity: None, token: Some("bad"), user: None },
        Caller {
            name: "a foreign certificate beside a good token",
            identity: Some(foreign.client("admin")),
            token: Some("good"),
            user: Some("monitor"),
        },
        Caller {
            name: "a good certificate beside a bad token",
            identity: Some(ca.client("admin")),
            token: Some("bad"),
            user: Some("admin"),
        },
    ]
}

/// What the answer has to be.
fn expected(
    caller: &Caller,
    (method, path, served, subresources): (&str, &str, u16, &str),
) -> (u16, Option<String>) {
    let Some(user) = caller.user else {
        return (401, Some("Unauthorized".into()));
    };
    let allowed = match user {
        "admin" => true,
        "monitor" => {
            method == "GET"
                && subresources
                    .split(' ')
                    .any(|subresource| ["pods", "healthz", "metrics"].contains(&subresource))
        }
        "classic" => subresources.contains("proxy"),
        _ => false,
    };
    if allowed {
        return (served, None);
    }
    let verb = if method == "GET" { "get" } else { "create" };
    let message =
        format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n");
    assert!(path.starts_with('/'));
    (403, Some(message))
}

#[tokio::test]
async fn the_table_of_callers_and_paths() {
    let server = TestServer::start(Setup::default()).await;
    for caller in callers(&server) {
        let mut http1 = server.http1(caller.identity.as_ref()).await;
        let http2 = server.http2(caller.identity.as_ref()).await;
        for row @ (method, path, ..) in PATHS {
            let (status, body) = expected(&caller, row);
            let answer = http1.ask(request(method, path, caller.token)).await;
            let shown = format!("{}: {method} {path}: {answer:?}", caller.name);
            assert_eq!(answer.status, status, "{shown}");
            if let Some(body) = &body {
                assert_eq!(&answer.body, body, "{shown}");
            }
            if method == "GET" && !varies(path) {
                let again = http2.get(path, caller.token).await;
                assert_eq!(again.is(), answer.is(), "over HTTP/2: {shown}");
            }
        }
    }
}

/// Whether two answers may differ: they count requests, or have the time in them.
fn varies(path: &str) -> bool {
    path.starts_with("/metrics") || path == "/statusz"
}

#[tokio::test]
async fn each_path_is_opened_by_each_of_its_subresources_and_by_no_other() {
    let server = TestServer::start(Setup::default()).await;
    for only in
        ["pods", "healthz", "configz", "statusz", "metrics", "stats", "log", "checkpoint", "proxy", ""]
    {
        let user = format!("only {only}");
        let mut client = server.http1(Some(&server.client_ca.client(&user))).await;
        for (method, path, served, subresources) in PATHS {
            let is_allowed = subresources.split(' ').any(|subresource| subresource == only);
            let answer = client.ask(request(method, path, None)).await;
            let expected = if is_allowed { served } else { 403 };
            assert_eq!(answer.status, expected, "{user}: {method} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn no_path_is_open_while_the_apiserver_is_down() {
    let server = TestServer::start(Setup::default()).await;
    *server.reviewer.mood.lock() = Mood::Down;
    let (mut admin, mut nobody) = (server.admin().await, server.http1(None).await);
    for (method, path, _, subresources) in PATHS {
        let verb = if method == "GET" { "get" } else { "create" };
        let first = subresources.split(' ').next().unwrap();
        let error =
            format!("Authorization error (user=admin, verb={verb}, resource=nodes, subresource={first})");
        assert_eq!(
            admin.ask(request(method, path, None)).await.is(),
            (500, error.as_str()),
            "{method} {path}"
        );
        let token = nobody.ask(request(method, path, Some("good"))).await;
        assert_eq!(token.is(), (401, "Unauthorized"), "{method} {path}");
    }
}

#[tokio::test]
async fn without_debugging_handlers_they_are_refused_but_only_to_those_who_may_ask() {
    let mut setup = Setup::default();
    setup.options.enable_debugging_handlers = false;
    let server = TestServer::start(setup).await;
    let mut admin = server.admin().await;
    let disabled = (405, "Debug endpoints are disabled.\n");
    for path in ["/containerLogs/ns/pod/c", "/exec/ns/pod/c", "/runningpods/", "/logs/", "/debug/pprof/heap"]
    {
        assert_eq!(admin.get(path).await.is(), disabled, "{path}");
    }
    assert_eq!(admin.get("/pods").await.status, 200);
    assert_eq!(server.http1(None).await.get("/exec/ns/pod/c").await.is(), (401, "Unauthorized"));
}

#[tokio::test]
async fn handlers_that_are_switched_off_say_so_to_every_method() {
    let mut setup = Setup::default();
    setup.options.about.profiling_is_off = true;
    let server = TestServer::start(setup).await;
    let mut admin = server.admin().await;
    for (path, expected) in [
        ("/debug/pprof/", "profiling endpoint is disabled.\n"),
        ("/debug/pprof/heap", "profiling endpoint is disabled.\n"),
        ("/debug/flags/v", "flags endpoint is disabled.\n"),
    ] {
        for method in ["GET", "POST", "PUT"] {
            assert_eq!(admin.ask(request(method, path, None)).await.is(), (405, expected), "{method} {path}");
        }
    }
    assert_eq!(admin.get("/logs/").await.is(), (405, "logs endpoint is disabled.\n"));
    assert_eq!(admin.get("/debug/other").await.status, 404);
}

#[tokio::test]
async fn anonymous_is_who_shows_nothing_and_only_if_that_is_on() {
    let server = TestServer::start(Setup { anonymous: true, ..Setup::default() }).await;
    let forbidden =
        "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(server.http1(None).await.get("/pods").await.is(), (403, forbidden));
    let (user, _) = server.reviewer.access_reviews.lock()[0].clone();
    assert_eq!(user.groups, ["system:unauthenticated"]);
    // Bad credentials do not make anybody anonymous.
    let bad_token = server.http1(None).await.ask(request("GET", "/pods", Some("bad"))).await;
    assert_eq!(bad_token.is(), (401, "Unauthorized"));
    let foreign = Ca::new("clients").client("admin");
    assert_eq!(server.http1(Some(&foreign)).await.get("/pods").await.is(), (401, "Unauthorized"));
}

#[tokio::test]
async fn a_certificate_names_user_and_groups() {
    let server = TestServer::start(Setup::default()).await;
    let subject = Subject { organizations: &["devs", "ops"], ..Subject::client("classic") };
    let identity = server.client_ca.sign(&subject);
    assert_eq!(server.http1(Some(&identity)).await.get("/pods").await.status, 200);
    let reviews = server.reviewer.access_reviews.lock().clone();
    let fingerprint: String =
        digest(&SHA256, &identity.chain[0]).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let user = UserInfo {
        username: "classic".into(),
        uid: String::new(),
        groups: vec!["devs".into(), "ops".into(), "system:authenticated".into()],
        extra: [(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={fingerprint}")],
        )]
        .into(),
    };
    let asked: Vec<_> =
        reviews.iter().map(|(user, what)| (user.clone(), what.subresource.as_str())).collect();
    assert_eq!(asked, [(user.clone(), "pods"), (user, "proxy")]);
}

#[tokio::test]
async fn a_certificate_is_worth_nothing_without_its_key() {
    let server = TestServer::start(Setup::default()).await;
    let (admin, other) = (server.client_ca.client("admin"), server.client_ca.client("stranger"));
    let stolen = admin.chain.clone();
    let garbage = vec![CertificateDer::from(vec![0x30, 0x82, 1, 2, 3])];
    for chain in [stolen, garbage] {
        // With a key of somebody else's. The library would notice, so it is not asked.
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(other.key.clone_key()).unwrap();
        for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots(&server))
            .with_client_cert_resolver(Arc::new(Fixed(Arc::new(CertifiedKey::new(
                chain.clone(),
                key.clone(),
            )))));
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let refused = async {
                let mut stream = server.tls(config).await?;
                // In TLS 1.3 the client learns of it with the first answer.
                stream.write_all(b"GET /pods HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                std::io::Result::Ok(answer)
            };
            let refused = refused.await;
            assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("alert")), "{refused:?}");
        }
    }
    assert!(server.reviewer.access_reviews.lock().is_empty());
}

fn roots(server: &TestServer) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.server_ca.certificate()).unwrap();
    roots
}

/// Always shows the same certificate.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn answers_of_the_apiserver_are_remembered() {
    let server = TestServer::start(Setup::default()).await;
    let mut client = server.http1(None).await;
    for _ in 0..5 {
        assert_eq!(client.ask(request("GET", "/pods", Some("good"))).await.status, 200);
        assert_eq!(client.ask(request("GET", "/pods", Some("bad"))).await.status, 401);
        // Denied, whatever the path: the path is no part of the question.
        assert_eq!(client.ask(request("GET", "/exec/ns/pod/c", Some("good"))).await.status, 403);
        assert_eq!(client.ask(request("GET", "/attach/ns/pod/c", Some("good"))).await.status, 403);
    }
    assert_eq!(server.reviewer.token_reviews.load(Ordering::SeqCst), 2);
    let asked: Vec<_> =
        server.reviewer.access_reviews.lock().iter().map(|(_, what)| what.subresource.clone()).collect();
    assert_eq!(asked, ["pods", "proxy"]);
}

#[tokio::test]
async fn an_apiserver_that_is_down_lets_nobody_in_but_who_is_known() {
    let server = TestServer::start(Setup::default()).await;
    let mut admin = server.admin().await;
    assert_eq!(admin.get("/pods").await.status, 200);
    *server.reviewer.mood.lock() = Mood::Down;
    assert_eq!(admin.get("/pods").await.status, 200, "what was allowed just now still is");
    let error = "Authorization error (user=admin, verb=get, resource=nodes, subresource=metrics)";
    assert_eq!(admin.get("/metrics").await.is(), (500, error));
    let token = server.http1(None).await.ask(request("GET", "/pods", Some("good"))).await;
    assert_eq!(token.is(), (401, "Unauthorized"));
    *server.reviewer.mood.lock() = Mood::Well;
    assert_eq!(admin.get("/metrics").await.status, 200, "errors are not remembered");
    let token = server.http1(None).await.ask(request("GET", "/pods", Some("good"))).await;
    assert_eq!(token.status, 200);
}

#[tokio::test]
async fn an_apiserver_that_hangs_lets_nobody_in_and_holds_nobody_for_ever() {
    let server = TestServer::start(Setup::default()).await;
    *server.reviewer.mood.lock() = Mood::Hanging;
    let started = Instant::now();
    let certificate = async {
        let answer = server.admin().await.get("/pods").await;
        let error = "Authorization error (user=admin, verb=get, resource=nodes, subresource=pods)";
        assert_eq!(answer.is(), (500, error));
    };
    let tokens = join_all((0..8).map(async |_| {
        let answer = server.http1(None).await.ask(request("GET", "/pods", Some("good"))).await;
        assert_eq!(answer.is(), (401, "Unauthorized"));
    }));
    let nothing = async { assert_eq!(server.http1(None).await.get("/pods").await.status, 401) };
    tokio::join!(certificate, tokens, nothing);
    assert!((9..20).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(server.reviewer.token_reviews.load(Ordering::SeqCst), 1, "equal questions are asked once");
    *server.reviewer.mood.lock() = Mood::Well;
    assert_eq!(server.admin().await.get("/pods").await.status, 200);
}
