//! Registries that are broken, or out to harm the node.

use serde_json::json;
use tokio::time::Instant;

use super::super::*;
use super::bed::{Bed, Pieces, module};
use super::fake::{self, Fake};
use crate::image::digest::Digest;

#[tokio::test]
async fn an_endless_manifest_is_given_up() {
    let registry = Fake::start(|_| fake::endless()).await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert!(error.message.contains("4194304 bytes"), "{error}");
}

#[tokio::test]
async fn an_endless_error_page_or_token_is_given_up() {
    let failing = Fake::start(|_| {
        let mut answer = fake::endless();
        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let error = Bed::new().refused(&format!("{}/app:v1", failing.host)).await;
    assert!(error.message.contains("500 Internal Server Error"), "{error}");

    let asking = Fake::start(|seen| {
        if seen.line.contains("/token") {
            return fake::endless();
        }
        let host = seen.headers["Host"].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\"");
        fake::with_header(fake::status(401, ""), "WWW-Authenticate", &challenge)
    })
    .await;
    let error = Bed::new().refused(&format!("{}/app:v1", asking.host)).await;
    assert!(error.message.contains("262144 bytes"), "{error}");
}

#[tokio::test]
async fn a_blob_is_read_no_further_than_its_manifest_says() {
    let pieces = Pieces::artifact(&module());
    let registry = Fake::start(move |seen| match seen.line.contains("/manifests/") {
        true => fake::ok(pieces.manifest().to_string()),
        false => fake::endless(),
    })
    .await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert!(error.message.contains("does not match"), "{error}");
}

#[tokio::test]
async fn what_is_too_large_is_not_even_asked_for() {
    let mut manifest = Pieces::artifact(&module()).manifest();
    manifest["layers"][0]["size"] = json!(1_u64 << 40);
    let registry = Fake::start(move |_| fake::ok(manifest.to_string())).await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert!(error.message.contains("1099511627776 bytes; at most 268435456 are allowed"), "{error}");
    assert_eq!(registry.count("/blobs/"), 0);
}

#[tokio::test]
async fn layers_of_the_wrong_platform_are_not_fetched() {
    let mut pieces = Pieces::artifact(&module());
    pieces.config.1 = super::bed::platform("linux", "amd64");
    let config = pieces.config.1.clone();
    let registry = Fake::start(move |seen| match seen.line.contains("/manifests/") {
        true => fake::ok(pieces.manifest().to_string()),
        false => fake::ok(config.clone()),
    })
    .await;
    Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert_eq!(registry.count("/blobs/"), 1);
}

#[tokio::test]
async fn layers_from_urls_in_the_manifest_are_not_fetched() {
    let elsewhere = Fake::start(|_| fake::ok("secret of the node's network")).await;
    let pieces = Pieces::artifact(&module());
    let mut manifest = pieces.manifest();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/", elsewhere.host)]);
    let config = pieces.config.1.clone();
    let registry = Fake::start(move |seen| {
        if seen.line.contains("/manifests/") {
            return fake::ok(manifest.to_string());
        }
        if seen.line.ends_with(Digest::of(&config).as_str()) {
            return fake::ok(config.clone());
        }
        fake::status(404, "")
    })
    .await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert!(error.message.contains("that its registry does not have"), "{error}");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn silence_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let never_answers = silent.local_addr().unwrap().to_string();
    let stops = Fake::start(|_| fake::stalling(b"{\"schemaVersion\": 2")).await;
    for host in [never_answers, stops.host.clone()] {
        let started = Instant::now();
        let error = Bed::new().refused(&format!("{host}/app:v1")).await;
        assert_eq!(error.kind, ErrorKind::RegistryUnavailable);
        assert!(error.message.contains("stopped answering"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let registry = Fake::start(|_| fake::ok(Pieces::artifact(&module()).manifest().to_string())).await;
    let reference = format!("{}/app@{}", registry.host, Digest::of(b"something else"));
    let error = Bed::new().refused(&reference).await;
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert!(error.message.contains("has a manifest that does not match"), "{error}");
}

#[tokio::test]
async fn answers_are_told_apart() {
    let envelope =
        "{\"errors\": [{\"code\": \"MANIFEST_INVALID\", \"message\": \"two\\nlines \\u001b[31m\"}]}";
    for (code, body, kind, message) in [
        (
            500,
            "<html>oops</html>",
            ErrorKind::RegistryUnavailable,
            "its registry failed: 500 Internal Server Error",
        ),
        (503, "", ErrorKind::RegistryUnavailable, "its registry failed: 503 Service Unavailable"),
        (429, "", ErrorKind::RegistryUnavailable, "its registry failed: 429 Too Many Requests"),
        (403, "", ErrorKind::Unauthorized, "needs credentials"),
        (404, "", ErrorKind::ImageUnusable, "was not found in its registry"),
        (400, envelope, ErrorKind::ImageUnusable, "400 Bad Request: MANIFEST_INVALID two lines  [31m"),
        (204, "", ErrorKind::ImageUnusable, "204 No Content"),
        (200, "", ErrorKind::ImageUnusable, "has a manifest that does not parse"),
    ] {
        let registry = Fake::start(move |_| fake::status(code, body)).await;
        let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = Fake::start(|seen| {
        fake::with_header(fake::status(307, ""), "Location", seen.line.split(' ').nth(1).unwrap())
    })
    .await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert!(error.message.contains("too many redirects"), "{error}");
    assert!(registry.seen().len() < 10);
}
