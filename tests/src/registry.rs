//! A registry on this machine: Docker's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::artifact::{Artifact, Blob};
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::Deadline;
use crate::{guests, network, programs};

/// The user of a registry that asks who one is.
pub const USER: &str = "tester";
/// That user's password.
pub const PASSWORD: &str = "tester-password";
/// The password as bcrypt makes it, the only form that the registry takes.
const PASSWORD_FILE: &str = "tester:$2y$05$abcdefghijklmnopqrstuuOHGaP7QPWk8uD6BmxRWtX/wO44CxO1y\n";

/// A registry. Dropping it ends it.
pub struct Registry {
    process: Option<Process>,
    scratch: Scratch,
    config: PathBuf,
    port: u16,
    authorization: Option<String>,
    /// The digests of what was pushed, by reference.
    pushed: Mutex<HashMap<String, String>>,
}

impl Registry {
    /// A registry for everyone.
    pub fn start() -> Result<Self> {
        Self::new(false)
    }

    /// A registry for [`USER`] only.
    pub fn start_private() -> Result<Self> {
        Self::new(true)
    }

    fn new(private: bool) -> Result<Self> {
        let scratch = Scratch::new("registry")?;
        let port = network::free_port()?;
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": scratch.join("data") } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        if private {
            let passwords = scratch.write("passwords", PASSWORD_FILE)?;
            config["auth"] = json!({ "htpasswd": { "realm": "tests", "path": passwords } });
        }
        let config = scratch.write("config.yml", config.to_string())?;
        let authorization =
            private.then(|| format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}"))));
        let mut registry =
            Self { process: None, scratch, config, port, authorization, pushed: Mutex::default() };
        registry.resume()?;
        Ok(registry)
    }

    /// Starts it again after [`Registry::stop`], with what it held.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = process::tethered(programs::bed("docker-registry")?);
        command.arg("serve").arg(&self.config);
        let mut process = Process::start("docker-registry", command, &self.scratch.join("registry.log"))?;
        let url = format!("http://127.0.0.1:{}/v2/", self.port);
        process.await_ready(Deadline::seconds(30), || crate::http::get(&url).is_ok())?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it; what it holds stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Host and port, as they stand in references.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// All that it logged: one line a request, among others.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Pushes an artifact and gives its reference.
    pub fn push(&self, artifact: &Artifact, repository: &str, tag: &str) -> Result<String> {
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            self.push_blob(repository, blob)?;
        }
        self.push_manifest(repository, tag, &artifact.manifest())
    }

    /// Pushes a guest in the CNCF's format, under its own name, and gives its reference.
    pub fn push_guest(&self, name: &str) -> Result<String> {
        let bytes = guests::bytes(name)?;
        let os = if is_component(&bytes) { "wasip2" } else { "wasip1" };
        self.push(&Artifact::wasm(&bytes, os), name, "v1")
    }

    /// Pushes a manifest, whatever it says, under a tag or a digest, and gives the reference. What is there already
    /// is not written again: the registry answers 500 to whoever reads a tag while it is written.
    pub fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) -> Result<String> {
        let reference = format!("{}/{repository}:{tag}", self.host());
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        if pushed.get(&reference) != Some(&manifest.digest()) {
            self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), Some(manifest))?;
            pushed.insert(reference.clone(), manifest.digest());
        }
        Ok(reference)
    }

    fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let place = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), None)?;
        let place = place.context("the registry says no place to upload to")?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let bytes = Blob::new("application/octet-stream", blob.bytes.clone());
        self.request("PUT", &format!("{place}{separator}digest={}", blob.digest()), Some(&bytes)).map(drop)
    }

    /// Asks the registry for something and gives the answer's `Location`.
    fn request(&self, method: &str, place: &str, body: Option<&Blob>) -> Result<Option<String>> {
        let absolute = place.starts_with("http");
        let url = if absolute { place.to_owned() } else { format!("http://127.0.0.1:{}{place}", self.port) };
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        if let Some(blob) = body {
            request = request.header("Content-Type", &blob.media_type);
        }
        let request = request.body(body.map(|blob| blob.bytes.clone()).unwrap_or_default())?;
        let response = ureq::run(request).with_context(|| format!("{method} {url}"))?;
        if !response.status().is_success() {
            bail!("{method} {url}: {}", response.status());
        }
        Ok(response.headers().get("Location").and_then(|value| value.to_str().ok()).map(str::to_owned))
    }
}

/// A component's preamble has layer 1 in its third pair of bytes.
fn is_component(bytes: &[u8]) -> bool {
    bytes.get(6) == Some(&1)
}
