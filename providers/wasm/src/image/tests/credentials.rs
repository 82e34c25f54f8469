//! Who may have what.

use coracle_provider::{RegistryAuth, Secret};
use serde_json::json;

use super::super::*;
use super::bed::{Bed, Pieces, module, password};
use super::fake::{self, Fake, Seen, serve};
use super::real::{PASSWORD, Registry, USER};

#[tokio::test]
async fn a_private_registry_wants_the_right_password() {
    let registry = Registry::start_private();
    let bed = Bed::new();
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let error = bed.refused(&reference).await;
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("imagePullSecrets"), "{error}");
    let error = bed.pull_as(&reference, password(USER, "wrong")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("refused the credentials"), "{error}");
    assert!(!error.message.contains("wrong"));

    bed.pull_as(&reference, password(USER, PASSWORD)).await.unwrap();
    // What one pod may have, another one does not get without showing who it is.
    for stranger in [None, password(USER, "wrong"), password("", "")] {
        let error = bed.pull_as(&reference, stranger).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized);
    }
    assert!(bed.store.status(&ImageSpec::new(&reference)).await.unwrap().is_some());
}

#[tokio::test]
async fn pulls_at_the_same_time_with_other_credentials_are_not_one() {
    let registry = Registry::start_private();
    let bed = Bed::new();
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let (known, stranger) =
        tokio::join!(bed.pull_as(&reference, password(USER, PASSWORD)), bed.pull_as(&reference, None));
    known.unwrap();
    assert_eq!(stranger.unwrap_err().kind, ErrorKind::Unauthorized);
}

/// A registry with a token server, both at once: `GET` and `POST /token` give the token `granted`.
async fn token_registry(
    is_let_in: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    is_granted: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> Fake {
    let pieces = Pieces::artifact(&module());
    Fake::start(move |seen| {
        if seen.line.contains("/token") {
            return match is_granted(seen) {
                true => fake::ok(json!({"access_token": "granted", "expires_in": 60}).to_string()),
                false => fake::status(401, "{\"details\": \"no\"}"),
            };
        }
        if !is_let_in(seen) {
            let host = seen.headers["Host"].to_str().unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token?a=b\",service=\"the service\"");
            return fake::with_header(fake::status(401, ""), "WWW-Authenticate", &challenge);
        }
        serve(&pieces, seen)
    })
    .await
}

fn has_token(seen: &Seen) -> bool {
    seen.authorization() == "Bearer granted"
}

#[tokio::test]
async fn tokens_are_fetched_with_what_the_pull_brings() {
    let identity =
        RegistryAuth { identity_token: Secret("refresh me".to_owned()), ..RegistryAuth::default() };
    let scope = "scope=repository%3Ateam%2Fapp%3Apull";
    for (auth, expected_line, expected_authorization, expected_body) in [
        (None, format!("GET /token?a=b&service=the+service&{scope}"), "", String::new()),
        (
            password("me", "s3cret"),
            format!("GET /token?a=b&service=the+service&{scope}"),
            "Basic bWU6czNjcmV0",
            String::new(),
        ),
        (
            Some(identity),
            "POST /token?a=b".to_owned(),
            "",
            format!(
                "grant_type=refresh_token&service=the+service&client_id=coracle&{scope}&refresh_token=refresh+me"
            ),
        ),
    ] {
        let registry = token_registry(has_token, |_| true).await;
        Bed::new().pull_as(&format!("{}/team/app:v1", registry.host), auth).await.unwrap();
        let seen = registry.seen();
        assert_eq!(seen[1].line, expected_line);
        assert_eq!(seen[1].authorization(), expected_authorization);
        assert_eq!(seen[1].body, expected_body);
        // One token for the whole pull: manifest, configuration, layer.
        assert_eq!((registry.count("/token"), registry.count("/v2/")), (1, 4));
    }
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let registry = token_registry(has_token, |_| false).await;
    let auth = |token: &str| {
        Some(RegistryAuth { registry_token: Secret(token.to_owned()), ..RegistryAuth::default() })
    };
    let reference = format!("{}/app:v1", registry.host);
    let bed = Bed::new();
    bed.pull_as(&reference, auth("granted")).await.unwrap();
    for bad in ["other", "not\na header"] {
        let error = bed.pull_as(&reference, auth(bad)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
    }
    assert_eq!(registry.count("/token"), 0);
}

#[tokio::test]
async fn a_refused_token_is_a_refused_pull() {
    let registry = token_registry(has_token, |seen| !seen.authorization().is_empty()).await;
    let reference = format!("{}/app:v1", registry.host);
    let bed = Bed::new();
    assert_eq!(bed.pull_as(&reference, password("me", "x")).await.map(drop), Ok(()));
    // No token of the pull before is left.
    let error = bed.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("needs credentials"), "{error}");
}

#[tokio::test]
async fn a_token_that_ends_during_a_pull_is_renewed() {
    let requests = std::sync::atomic::AtomicUsize::new(0);
    let expires_once = move |seen: &Seen| {
        let number = requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        // The first has none, the second is the manifest, and then it has expired.
        has_token(seen) && number != 2
    };
    let registry = token_registry(expires_once, |_| true).await;
    Bed::new().pull(&format!("{}/app:v1", registry.host)).await.unwrap();
    assert_eq!(registry.count("/token"), 2);
}

#[tokio::test]
async fn a_registry_that_never_lets_in_is_not_asked_for_ever() {
    let registry = token_registry(|_| false, |_| true).await;
    let error = Bed::new().pull(&format!("{}/app:v1", registry.host)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert_eq!((registry.count("/token"), registry.count("/v2/")), (1, 2));
}

#[tokio::test]
async fn a_strange_challenge_is_refused() {
    for (challenge, reason) in [
        ("Bearer realm=\"file:///etc/passwd\"", "no URL"),
        ("Bearer realm=\"nonsense\"", "no URL"),
        ("Negotiate", "needs credentials"),
    ] {
        let registry =
            Fake::start(move |_| fake::with_header(fake::status(401, ""), "WWW-Authenticate", challenge))
                .await;
        let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(error.message.contains(reason), "{challenge}: {error}");
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let pieces = Pieces::artifact(&module());
    let (storage_pieces, registry_pieces) = (pieces.clone(), pieces.clone());
    let storage = Fake::start(move |seen| serve(&storage_pieces, seen)).await;
    let elsewhere = storage.host.clone();
    let registry = Fake::start(move |seen| {
        if seen.authorization().is_empty() {
            return fake::with_header(fake::status(401, ""), "WWW-Authenticate", "Basic realm=\"x\"");
        }
        if seen.line.contains("/manifests/") {
            return serve(&registry_pieces, seen);
        }
        let path = seen.line.split(' ').nth(1).unwrap();
        fake::with_header(fake::status(307, ""), "Location", &format!("http://{elsewhere}{path}"))
    })
    .await;
    Bed::new().pull_as(&format!("{}/app:v1", registry.host), password("me", "s3cret")).await.unwrap();
    assert_eq!(storage.count("/blobs/"), 2);
    assert!(storage.seen().iter().all(|seen| seen.authorization().is_empty()));
}

#[tokio::test]
async fn secrets_show_in_no_debug_output() {
    let registry = Registry::start_private();
    let bed = Bed::new();
    let request = super::bed::request(&registry.reference("app:v1"), password(USER, PASSWORD));
    assert!(!format!("{request:?}").contains(PASSWORD));
    let error = bed.store.pull(request, None).await.unwrap_err();
    assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
}
