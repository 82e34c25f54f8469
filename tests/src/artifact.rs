//! OCI artifacts that hold WebAssembly, in the formats that are about.

use std::io::Write as _;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Some bytes of an artifact.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What they are.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Bytes of a media type.
    pub fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { media_type: media_type.to_owned(), bytes: bytes.into() }
    }

    /// `sha256:…`
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An artifact: configuration and layers.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its configuration.
    pub config: Blob,
    /// Its layers.
    pub layers: Vec<Blob>,
}

impl Artifact {
    /// The CNCF's format: one layer, which is the module itself. `os` is `wasip1` or `wasip2`.
    pub fn wasm(module: &[u8], os: &str) -> Self {
        let layer = Blob::new("application/wasm", module);
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": os,
            "layerDigests": [layer.digest()],
        });
        Self {
            config: Blob::new("application/vnd.wasm.config.v0+json", config.to_string()),
            layers: vec![layer],
        }
    }

    /// The format of `docker build --platform wasi/wasm`: a root file system that holds the module.
    pub fn docker(module: &[u8], entrypoint: &str) -> Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(module.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, entrypoint.trim_start_matches('/'), module)?;
        let tar = tar.into_inner()?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        let config = json!({
            "architecture": "wasm",
            "os": "wasip1",
            "config": { "Entrypoint": [entrypoint], "Env": ["FROM_IMAGE=yes"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        });
        Ok(Self {
            config: Blob::new("application/vnd.oci.image.config.v1+json", config.to_string()),
            layers: vec![Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish()?)],
        })
    }

    /// Its manifest.
    pub fn manifest(&self) -> Blob {
        const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": self.config.descriptor(),
            "layers": self.layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Blob::new(MEDIA_TYPE, manifest.to_string())
    }
}
