//! A real registry on this machine: the distribution project's.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bed::Pieces;
use crate::image::digest::Digest;
use crate::image::media_type::{OCI_INDEX, OCI_MANIFEST};

pub(super) const USER: &str = "tester";
pub(super) const PASSWORD: &str = "s3cret";
const AUTHORIZATION: &str = "Basic dGVzdGVyOnMzY3JldA==";
/// bcrypt of [`PASSWORD`], the only form that the registry takes.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A running registry. Dropping it ends it and removes what it held.
pub(super) struct Registry {
    process: Child,
    dir: TempDir,
    /// As it stands in references.
    pub(super) host: String,
    is_private: bool,
}

impl Registry {
    pub(super) fn start() -> Self {
        Self::start_with(false)
    }

    /// One that asks for [`USER`] and [`PASSWORD`].
    pub(super) fn start_private() -> Self {
        Self::start_with(true)
    }

    fn start_with(is_private: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": "127.0.0.1:0", "secret": "of the tests"},
        });
        if is_private {
            let passwords = dir.path().join("htpasswd");
            std::fs::write(&passwords, HTPASSWD).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "tests", "path": passwords}});
        }
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config.to_string()).unwrap();

        // It ends with the thread of the test, however that ends.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program("docker-registry"))
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
                rest.split('"').next().map(str::to_owned)
            })
            .expect("the registry says where it listens");
        // It would block, and then end, if nobody read what it logs.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, dir, host: format!("localhost:{port}"), is_private }
    }

    pub(super) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Pushes an image under `repository:tag`; answers the reference.
    pub(super) async fn push(&self, name: &str, image: &Pieces) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        for (_, blob) in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, image.media_type.unwrap_or(OCI_MANIFEST), &image.manifest())
            .await;
        self.reference(name)
    }

    /// Pushes an index over images that were pushed to the repository before.
    pub(super) async fn push_index(&self, name: &str, entries: &[(&str, &str, &Pieces)]) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let mut manifests = Vec::new();
        for (os, architecture, image) in entries {
            self.push(&format!("{repository}:{os}-{architecture}"), image).await;
            manifests.push(json!({
                "mediaType": OCI_MANIFEST,
                "digest": image.digest(),
                "size": image.manifest().to_string().len(),
                "platform": {"os": os, "architecture": architecture},
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        self.push_manifest(repository, tag, OCI_INDEX, &index).await;
        self.reference(name)
    }

    pub(super) async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        manifest: &Value,
    ) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let (status, _, body) =
            self.send(Method::PUT, &url, media_type, manifest.to_string().as_bytes()).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    async fn push_blob(&self, repository: &str, blob: &[u8]) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.host);
        let (status, location, body) = self.send(Method::POST, &url, "text/plain", b"").await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        let url = format!("{}&digest={}", location.unwrap(), Digest::of(blob));
        let (status, _, body) = self.send(Method::PUT, &url, "application/octet-stream", blob).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: &[u8],
    ) -> (StatusCode, Option<String>, String) {
        let mut request = Request::builder().method(method).uri(url).header("Content-Type", content_type);
        if self.is_private {
            request = request.header("Authorization", AUTHORIZATION);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let location = response.headers().get("Location").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, location, String::from_utf8_lossy(&body).into_owned())
    }

    /// Where the registry keeps a blob.
    pub(super) fn blob_file(&self, blob: &[u8]) -> PathBuf {
        let digest = Digest::of(blob);
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest.hex()[..2]).join(digest.hex()).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It has ended already, or it ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program of the bed, by `$CORACLE_REGISTRY_BIN` for the registry, else what `cargo xtask setup` has got, else the
/// one that is installed.
pub(super) fn program(name: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || {
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(cache.join("coracle/bed/current"))
    };
    let chosen = set("CORACLE_REGISTRY_BIN").filter(|_| name == "docker-registry");
    let bed = set("CORACLE_BED").or_else(cache).map(|bed| bed.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut candidates = chosen.into_iter().chain(bed).chain(installed);
    let found = candidates.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: run `cargo xtask setup`"))
}
