//! Kubeconfig files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::certificates::Pair;
use crate::scratch::Scratch;

/// Writes a kubeconfig that holds everything it needs. It is JSON, which is YAML too.
pub fn write(folder: &Scratch, name: &str, server: &str, authority: &Path, client: &Pair) -> Result<PathBuf> {
    let data = |path: &Path| -> Result<String> { Ok(STANDARD.encode(fs::read(path)?)) };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "bed",
            "cluster": { "server": server, "certificate-authority-data": data(authority)? },
        }],
        "users": [{
            "name": name,
            "user": {
                "client-certificate-data": data(&client.certificate)?,
                "client-key-data": data(&client.key)?,
            },
        }],
        "contexts": [{ "name": "bed", "context": { "cluster": "bed", "user": name } }],
        "current-context": "bed",
    });
    folder.write(format!("{name}.kubeconfig"), serde_json::to_vec_pretty(&config)?)
}
