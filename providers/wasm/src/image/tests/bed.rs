//! A store with a counting compiler, and images to pull into it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_provider::{RegistryAuth, Secret};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::*;
use crate::image::digest::Digest;

/// What stands for one compiled binary.
pub(super) const PREPARED_BYTES: u64 = 1000;

/// Compiles nothing, and remembers that.
#[derive(Default)]
pub(super) struct Compiler {
    pub(super) runs: AtomicUsize,
    pub(super) prepared: Mutex<Vec<String>>,
    /// What to answer, instead of success.
    pub(super) fails: Mutex<Option<Error>>,
    /// How long it takes.
    pub(super) takes: Duration,
}

#[async_trait]
impl Prepare for Compiler {
    async fn prepare(&self, wasm: &WasmBlob) -> Result<()> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        assert_eq!(wasm.size, std::fs::metadata(&wasm.path).unwrap().len());
        tokio::time::sleep(self.takes).await;
        if let Some(error) = self.fails.lock().clone() {
            return Err(error);
        }
        self.prepared.lock().push(wasm.digest.clone());
        Ok(())
    }

    fn prepared_bytes(&self, digest: &str) -> u64 {
        if self.prepared.lock().iter().any(|known| known == digest) { PREPARED_BYTES } else { 0 }
    }

    fn forget(&self, digest: &str) {
        self.prepared.lock().retain(|known| known != digest);
    }

    fn retain(&self, digests: &HashSet<String>) {
        self.prepared.lock().retain(|known| digests.contains(known));
    }
}

/// A store in a folder of its own.
pub(super) struct Bed {
    pub(super) dir: TempDir,
    pub(super) compiler: Arc<Compiler>,
    pub(super) store: Arc<ImageStore>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(Compiler::default(), |_| {})
    }

    pub(super) fn with(compiler: Compiler, adjust: impl FnOnce(&mut Options)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = Options::new(dir.path());
        options.connect_timeout = Duration::from_secs(5);
        options.stall_timeout = Duration::from_millis(500);
        adjust(&mut options);
        let compiler = Arc::new(compiler);
        let store = ImageStore::open(options, compiler.clone()).unwrap();
        Self { dir, compiler, store }
    }

    pub(super) async fn pull(&self, image: &str) -> Result<Image> {
        self.pull_as(image, None).await
    }

    pub(super) async fn pull_as(&self, image: &str, auth: Option<RegistryAuth>) -> Result<Image> {
        self.store.pull(request(image, auth), None).await
    }

    /// The error of a pull that must fail, which must leave nothing behind.
    pub(super) async fn refused(&self, image: &str) -> Error {
        let error = self.pull(image).await.expect_err(image);
        assert_eq!(self.files(), 0, "{error}");
        assert!(!error.message.contains('\n'), "{error}");
        error
    }

    /// How many files of images there are.
    pub(super) fn files(&self) -> usize {
        let count = |folder: &str| {
            let folder = self.dir.path().join("images").join(folder);
            std::fs::read_dir(folder).unwrap().count()
        };
        count("blobs/sha256") + count("unpacked/sha256") + count("tmp")
    }

    /// What an image that is present runs by itself.
    pub(super) fn artifact(&self, image: &str) -> Result<Arc<Artifact>> {
        Ok(self.store.present(image)?.image.artifact.clone().unwrap())
    }

    /// The bytes that would be run for an image.
    pub(super) fn binary(&self, image: &str) -> Vec<u8> {
        let artifact = self.artifact(image).unwrap();
        let bytes = std::fs::read(&artifact.wasm.path).unwrap();
        assert_eq!(artifact.wasm.digest, Digest::of(&bytes).to_string());
        bytes
    }
}

pub(super) fn request(image: &str, auth: Option<RegistryAuth>) -> PullRequest {
    PullRequest { image: ImageSpec::new(image), auth, ..PullRequest::default() }
}

pub(super) fn password(username: &str, password: &str) -> Option<RegistryAuth> {
    Some(RegistryAuth {
        username: username.to_owned(),
        password: Secret(password.to_owned()),
        ..RegistryAuth::default()
    })
}

/// Waits until something that runs in the background is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not so: {what}");
}

pub(super) fn module() -> Vec<u8> {
    wat::parse_str("(module (func (export \"_start\")) (memory (export \"memory\") 1))").unwrap()
}

pub(super) fn component() -> Vec<u8> {
    wat::parse_str("(component (core module (func)))").unwrap()
}

/// An image in pieces, to be changed and pushed.
#[derive(Clone)]
pub(super) struct Pieces {
    pub(super) media_type: Option<&'static str>,
    pub(super) config: (&'static str, Vec<u8>),
    pub(super) layers: Vec<(&'static str, Vec<u8>)>,
}

impl Pieces {
    /// The CNCF's Wasm artifact.
    pub(super) fn artifact(wasm: &[u8]) -> Self {
        Self {
            media_type: Some(media_type::OCI_MANIFEST),
            config: (media_type::WASM_CONFIG, platform("wasip2", "wasm")),
            layers: vec![(media_type::WASM_LAYER, wasm.to_vec())],
        }
    }

    /// A container image with one archive.
    pub(super) fn container(layer: Vec<u8>, entrypoint: &[&str]) -> Self {
        let config = json!({"os": "wasi", "architecture": "wasm", "config": {
            "Entrypoint": entrypoint, "Env": ["FROM=image"], "WorkingDir": "/srv", "User": "1000:1000"
        }});
        Self {
            media_type: Some(media_type::OCI_MANIFEST),
            config: (media_type::OCI_CONFIG, config.to_string().into_bytes()),
            layers: vec![("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
        }
    }

    pub(super) fn manifest(&self) -> Value {
        let describe = |(media_type, bytes): &(&str, Vec<u8>)| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let mut manifest = json!({
            "schemaVersion": 2,
            "config": describe(&self.config),
            "layers": self.layers.iter().map(describe).collect::<Vec<_>>(),
        });
        if let Some(media_type) = self.media_type {
            manifest["mediaType"] = json!(media_type);
        }
        manifest
    }

    /// The digest of [`Pieces::manifest`].
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.manifest().to_string().as_bytes())
    }
}

pub(super) fn platform(os: &str, architecture: &str) -> Vec<u8> {
    json!({"os": os, "architecture": architecture}).to_string().into_bytes()
}

/// A tar archive with these files.
pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path.trim_start_matches('/'), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes over a file that its owner may only read.
pub(super) fn overwrite(path: &Path, content: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}
