//! Registries that the operator has said more about: mirrors, authorities, servers in their place.

use std::path::Path;

use tempfile::TempDir;

use super::super::*;
use super::bed::{Bed, Pieces, module, password};
use super::fake::{self, Fake, Seen, serve};
use crate::image::digest::Digest;

/// A folder as containerd's `certs.d`, with what is said about one registry.
struct Hosts(TempDir);

impl Hosts {
    fn of(registry: &str, hosts_toml: &str) -> Self {
        let hosts = Self(TempDir::new().unwrap());
        hosts.write(registry, "hosts.toml", hosts_toml);
        hosts
    }

    fn write(&self, registry: &str, file: &str, content: &str) {
        let folder = self.0.path().join(registry);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), content).unwrap();
    }

    fn bed(&self) -> Bed {
        bed(self.0.path())
    }
}

fn bed(hosts: &Path) -> Bed {
    Bed::with(Default::default(), |options| options.hosts_dir = Some(hosts.to_owned()))
}

async fn registry_of(pieces: &Pieces) -> Fake {
    let pieces = pieces.clone();
    Fake::start(move |seen| serve(&pieces, seen)).await
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_without_the_pod_s_credentials() {
    let pieces = Pieces::artifact(&module());
    let mirror = registry_of(&pieces).await;
    let hosts = Hosts::of(
        "registry.example.com:5000",
        &format!("server = \"https://nobody.example.com\"\n[host.\"http://{}\"]", mirror.host),
    );
    let bed = hosts.bed();
    let image = "registry.example.com:5000/team/app:v1";
    let pulled = bed.pull_as(image, password("me", "s3cret")).await.unwrap();
    assert_eq!(pulled.repo_tags, [image]);
    let lines: Vec<String> = mirror.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines[0], "GET /v2/team/app/manifests/v1?ns=registry.example.com:5000");
    assert!(lines.iter().all(|line| line.ends_with("?ns=registry.example.com:5000")), "{lines:?}");
    assert!(mirror.seen().iter().all(|seen| seen.authorization().is_empty()));

    // One that wants credentials does not get them either.
    let greedy =
        Fake::start(|_| fake::with_header(fake::status(401, ""), "WWW-Authenticate", "Basic realm=\"give\""))
            .await;
    let hosts = Hosts::of(&mirror.host, &format!("[host.\"http://{}\"]", greedy.host));
    hosts.bed().pull_as(&format!("{}/app:v1", mirror.host), password("me", "s3cret")).await.unwrap();
    assert!(!greedy.seen().is_empty());
    assert!(greedy.seen().iter().all(|seen| seen.authorization().is_empty()));
}

#[tokio::test]
async fn a_mirror_that_may_not_resolve_gives_blobs_only() {
    let pieces = Pieces::artifact(&module());
    let (mirror, registry) = (registry_of(&pieces).await, registry_of(&pieces).await);
    let hosts_toml = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]", mirror.host);
    let hosts = Hosts::of(&registry.host, &hosts_toml);
    hosts.bed().pull(&format!("{}/app:v1", registry.host)).await.unwrap();
    assert_eq!((mirror.count("/manifests/"), mirror.count("/blobs/")), (0, 2));
    assert_eq!((registry.count("/manifests/"), registry.count("/blobs/")), (1, 0));

    // What a digest names is the same everywhere.
    let pinned = format!("{}/app@{}", registry.host, pieces.digest());
    hosts.bed().pull(&pinned).await.unwrap();
    assert_eq!((mirror.count("/manifests/"), registry.count("/manifests/")), (1, 1));
}

#[tokio::test]
async fn where_a_mirror_fails_the_registry_is_asked() {
    let pieces = Pieces::artifact(&module());
    let registry = registry_of(&pieces).await;
    let down = {
        let gone = Fake::start(|_| fake::ok("")).await;
        gone.host.clone()
    };
    let failing = Fake::start(|_| fake::status(500, "")).await;
    let other = Pieces::artifact(b"something else");
    let lying = registry_of(&other).await;
    let manifest = pieces.clone();
    let without_blobs = Fake::start(move |seen: &Seen| match seen.line.contains("/blobs/") {
        true => fake::status(404, ""),
        false => serve(&manifest, seen),
    })
    .await;
    for mirror in [&down, &failing.host, &lying.host, &without_blobs.host] {
        let hosts = Hosts::of(&registry.host, &format!("[host.\"http://{mirror}\"]"));
        let image = format!("{}/app@{}", registry.host, pieces.digest());
        let bed = hosts.bed();
        bed.pull(&image).await.unwrap();
        assert_eq!(bed.binary(&image), module());
    }
    // If none has it, the registry's own answer is shown.
    let empty = Fake::start(|_| fake::status(404, "")).await;
    let hosts = Hosts::of(&empty.host, &format!("[host.\"http://{}\"]", failing.host));
    let error = hosts.bed().refused(&format!("{}/app:v1", empty.host)).await;
    assert!(error.message.contains("was not found in its registry"), "{error}");
}

#[tokio::test]
async fn a_server_in_the_registry_s_place_gets_its_credentials() {
    let pieces = Pieces::artifact(&module());
    let server = Fake::start(move |seen| match seen.authorization() {
        "Basic bWU6czNjcmV0" => serve(&pieces, seen),
        _ => fake::with_header(fake::status(401, ""), "WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let hosts = Hosts::of("_default", &format!("server = \"http://{}\"", server.host));
    hosts.bed().pull_as("registry.example.com/app:v1", password("me", "s3cret")).await.unwrap();
}

#[tokio::test]
async fn a_registry_with_a_private_authority_is_trusted_by_that_and_nothing_else() {
    let pieces = Pieces::artifact(&module());
    let (registry, authority) = Fake::start_tls(move |seen| serve(&pieces, seen)).await;
    let image = format!("{}/app:v1", registry.host);
    for (file, content) in [
        ("hosts.toml", "ca = \"ca.pem\""),
        ("ca.crt", authority.as_str()),
        ("hosts.toml", "ca = [\"ca.pem\"]"),
    ] {
        let hosts = Hosts(TempDir::new().unwrap());
        hosts.write(&registry.host, file, content);
        hosts.write(&registry.host, "ca.pem", &authority);
        hosts.bed().pull(&image).await.unwrap();
    }
    let (_, stranger) = Fake::start_tls(|_| fake::ok("")).await;
    let hosts = Hosts::of(&registry.host, "ca = \"ca.pem\"");
    let error = hosts.bed().refused(&image).await;
    assert!(error.message.contains("ca.pem: No such file"), "{error}");
    hosts.write(&registry.host, "ca.pem", "nothing");
    let error = hosts.bed().refused(&image).await;
    assert!(error.message.contains("holds no certificate"), "{error}");
    hosts.write(&registry.host, "ca.pem", &stranger);
    let error = hosts.bed().refused(&image).await;
    assert_eq!(error.kind, ErrorKind::RegistryUnavailable, "{error}");
    assert!(error.message.contains("certificate"), "{error}");
}

#[tokio::test]
async fn what_the_folder_says_holds_at_once_and_what_is_not_supported_is_named() {
    let pieces = Pieces::artifact(&module());
    let registry = registry_of(&pieces).await;
    let image = format!("{}/app:v1", registry.host);
    let hosts = Hosts::of(&registry.host, "skip_verify = true");
    let bed = hosts.bed();
    let error = bed.refused(&image).await;
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains("hosts.toml sets skip_verify"), "{error}");
    hosts.write(&registry.host, "hosts.toml", "capabilities = [\"push\"]");
    assert!(bed.refused(&image).await.message.contains("lets no server be asked"));
    hosts.write(&registry.host, "hosts.toml", "");
    bed.pull(&image).await.unwrap();
}

/// A registry that breaks off after `after` bytes of the first answer with the layer, and answers the next by `rest`.
async fn breaking(
    pieces: &Pieces,
    after: usize,
    rest: impl Fn(&Seen, &[u8]) -> fake::Answer + Send + Sync + 'static,
) -> Fake {
    let (pieces, layer) = (pieces.clone(), pieces.layers[0].1.clone());
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Fake::start(move |seen| {
        if !seen.line.ends_with(Digest::of(&layer).as_str()) {
            return serve(&pieces, seen);
        }
        match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => fake::broken_off(&layer, after),
            _ => rest(seen, &layer),
        }
    })
    .await
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_was() {
    let pieces = Pieces::artifact(&module());
    let part = |layer: &[u8], from: usize| {
        let mut answer = fake::ok(layer[from..].to_vec());
        *answer.status_mut() = http::StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{}", layer.len() - 1, layer.len());
        fake::with_header(answer, "Content-Range", &range)
    };
    let knows_ranges = breaking(&pieces, 20, move |_, layer| part(layer, 20)).await;
    let knows_none = breaking(&pieces, 20, |_, layer| fake::ok(layer.to_vec())).await;
    for registry in [&knows_ranges, &knows_none] {
        let bed = Bed::new();
        let image = format!("{}/app:v1", registry.host);
        let (sender, mut progress) = mpsc::channel(64);
        bed.store.pull(super::bed::request(&image, None), Some(sender)).await.unwrap();
        assert_eq!(bed.binary(&image), module());
        let last = registry.seen().pop().unwrap();
        assert_eq!(last.headers["Range"], "bytes=20-");
        // Bytes that came twice are counted once.
        let total = (pieces.config.1.len() + pieces.layers[0].1.len()) as u64;
        let mut most = 0;
        while let Some(message) = progress.recv().await {
            if let PullProgress::Fetched { bytes } = message {
                most = bytes;
            }
        }
        assert_eq!(most, total);
    }

    let sends_another_part = breaking(&pieces, 20, move |_, layer| part(layer, 10)).await;
    let error = Bed::new().refused(&format!("{}/app:v1", sends_another_part.host)).await;
    assert!(error.message.contains("another part than it was asked for"), "{error}");
}

#[tokio::test]
async fn a_download_that_stays_broken_is_given_up() {
    let pieces = Pieces::artifact(&module());
    let registry = breaking(&pieces, 20, |_, _| fake::status(503, "")).await;
    let error = Bed::new().refused(&format!("{}/app:v1", registry.host)).await;
    assert_eq!(error.kind, ErrorKind::RegistryUnavailable);
    assert!(error.message.contains("503"), "{error}");
    assert_eq!(registry.seen().len(), 1 + 1 + 1 + 4, "manifest, configuration, layer, four more attempts");
}
