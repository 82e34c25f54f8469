//! Manifests and indexes, by the OCI image specification and Docker's schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, WASM_LAYER};

/// A manifest names more layers than this only to waste the node's time; container images stop at 127.
const MAX_LAYERS: usize = 128;

const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";

/// A blob as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    /// What an artifact in an index is, which has no platform there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What a registry has under a reference.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Box<Manifest>),
    /// One entry for each platform.
    Index(Vec<Descriptor>),
}

/// Why a manifest or index can't be used. Continues "image X …".
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("has a manifest that does not parse: {0}")]
    Malformed(String),
    #[error("has a manifest of type {0:?}, which is not supported: push it again with a current tool")]
    UnsupportedType(String),
    #[error("has a manifest that is an image and an index at once, and is refused")]
    Ambiguous,
    #[error("is an index in an index, which is not supported")]
    NestedIndex,
    #[error("has {0} layers; at most {MAX_LAYERS} are supported")]
    TooManyLayers(usize),
    #[error("has no Wasm variant: it offers {0}; build it for wasi/wasm")]
    NoWasmVariant(String),
}

/// A manifest or an index, before it is known which.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    /// Reads `bytes`. The document's own media type counts first, then `content_type`, then what it holds: all of them
    /// are optional in practice.
    pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        let declared = raw.media_type.as_deref().or(content_type).filter(|declared| is_specific(declared));
        if raw.schema_version != 2 {
            let shown = format!("schema version {}", raw.schema_version);
            return Err(ManifestError::UnsupportedType(declared.unwrap_or(&shown).to_owned()));
        }
        // Two tools could see two images in such a document, and only one of them would have been checked.
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let is_index = match declared {
            Some(OCI_INDEX | DOCKER_INDEX) => true,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            Some(other) => return Err(ManifestError::UnsupportedType(other.to_owned())),
            None => raw.manifests.is_some(),
        };
        if is_index {
            let entries = raw.manifests.ok_or_else(|| missing("manifests"))?;
            return Ok(Self::Index(entries));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: declared.unwrap_or(OCI_MANIFEST).to_owned(),
            config: raw.config.ok_or_else(|| missing("config"))?,
            layers: raw.layers.ok_or_else(|| missing("layers"))?,
            annotations: raw.annotations,
        };
        match manifest.layers.len() {
            count if count > MAX_LAYERS => Err(ManifestError::TooManyLayers(count)),
            _ => Ok(Self::Manifest(Box::new(manifest))),
        }
    }
}

impl Descriptor {
    /// The file name that the pushing tool gave a layer (OCI image specification, "Pre-Defined Annotation Keys").
    pub(super) fn title(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(TITLE_ANNOTATION).map(String::as_str)
    }

    fn is_wasm_artifact(&self) -> bool {
        let is_wasm = |kind: &str| kind == WASM_LAYER || kind.starts_with("application/vnd.wasm.");
        self.artifact_type.as_deref().is_some_and(is_wasm)
    }
}

impl Manifest {
    /// The configuration and the layers.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

fn missing(field: &str) -> ManifestError {
    ManifestError::Malformed(format!("it has no {field}"))
}

/// Whether a content type says more than that this is JSON or bytes.
fn is_specific(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.")
}

impl Platform {
    /// Whether a Wasm host runs it. `wasm32` is what Docker's first previews called it.
    pub(super) fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32")
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        write!(f, "{}/{}", known(&self.os), known(&self.architecture))
    }
}

/// The entry of an index that this provider runs: the newest WASI first, then an artifact that says that it is Wasm,
/// then the only entry that is for no platform.
pub(super) fn select_wasm(entries: &[Descriptor]) -> Result<&Descriptor, ManifestError> {
    let rank = |platform: &Platform| match platform.os.as_str() {
        "wasip2" => 0,
        "wasip1" => 1,
        "wasi" => 2,
        _ => 3,
    };
    let best = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref().map(|platform| (platform, entry)))
        .filter(|(platform, _)| platform.is_wasm())
        .min_by_key(|(platform, _)| rank(platform));
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    let artifacts: Vec<_> = entries.iter().filter(|entry| entry.platform.is_none()).collect();
    let wasm: Vec<_> = artifacts.iter().filter(|entry| entry.is_wasm_artifact()).copied().collect();
    match (wasm.as_slice(), artifacts.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only),
        _ => Err(ManifestError::NoWasmVariant(offered(entries))),
    }
}

/// The platforms of an index for a message. Build attestations (`unknown/unknown`) are no platforms.
fn offered(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(Platform::to_string)
        .collect();
    names.dedup();
    names.truncate(8);
    if names.is_empty() { "no platform".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn descriptor(name: &str, platform: Option<(&str, &str)>) -> Value {
        let mut descriptor = json!({"mediaType": "x", "digest": Digest::of(name.as_bytes()), "size": 1});
        if let Some((os, architecture)) = platform {
            descriptor["platform"] = json!({"os": os, "architecture": architecture, "variant": "v8"});
        }
        descriptor
    }

    fn manifest() -> Value {
        json!({"schemaVersion": 2, "config": descriptor("config", None), "layers": [descriptor("layer", None)]})
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<Document, String> {
        Document::parse(document.to_string().as_bytes(), content_type).map_err(|e| e.to_string())
    }

    #[test]
    fn the_type_comes_from_the_document_the_header_or_the_fields() {
        let with = |mut document: Value, media_type: &str| {
            document["mediaType"] = json!(media_type);
            document
        };
        let index = json!({"schemaVersion": 2, "manifests": [descriptor("a", None)]});
        for (document, content_type, is_index) in [
            (manifest(), None, false),
            (manifest(), Some(OCI_MANIFEST), false),
            (manifest(), Some("application/json"), false),
            (with(manifest(), OCI_MANIFEST), None, false),
            (with(manifest(), DOCKER_MANIFEST), Some("text/plain"), false),
            (index.clone(), None, true),
            (index.clone(), Some(DOCKER_INDEX), true),
            (with(index.clone(), OCI_INDEX), None, true),
        ] {
            let parsed = parse(&document, content_type).unwrap();
            assert_eq!(matches!(parsed, Document::Index(_)), is_index, "{document}");
        }
    }

    #[test]
    fn broken_and_hostile_documents_are_refused() {
        let mut both = manifest();
        both["manifests"] = json!([]);
        let mut long = manifest();
        long["layers"] = json!(vec![descriptor("layer", None); 129]);
        let mut negative = manifest();
        negative["layers"][0]["size"] = json!(-1);
        let mut traversal = manifest();
        traversal["layers"][0]["digest"] = json!("sha256:../../etc/passwd");
        let schema1 = json!({"schemaVersion": 1, "fsLayers": []});
        for (document, content_type, reason) in [
            (both, None, "an image and an index at once"),
            (long, None, "has 129 layers"),
            (negative, None, "does not parse"),
            (traversal, None, "not a sha256 digest"),
            (manifest(), Some(OCI_INDEX), "has no manifests"),
            (manifest(), Some("application/vnd.example+json"), "application/vnd.example+json"),
            (schema1.clone(), None, "schema version 1"),
            (schema1, Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "v1+prettyjws"),
            (json!({"schemaVersion": 2}), None, "has no config"),
            (json!([]), None, "does not parse"),
        ] {
            let message = parse(&document, content_type).expect_err(reason);
            assert!(message.contains(reason), "{message}");
        }
        assert!(Document::parse(b"<html>", None).is_err());
    }

    #[test]
    fn an_index_is_resolved_by_platform() {
        let select = |platforms: &[Option<(&str, &str)>]| {
            let entries: Vec<Descriptor> = platforms
                .iter()
                .enumerate()
                .map(|(i, platform)| serde_json::from_value(descriptor(&i.to_string(), *platform)).unwrap())
                .collect();
            select_wasm(&entries)
                .map(|chosen| entries.iter().position(|entry| entry == chosen).unwrap())
                .map_err(|e| e.to_string())
        };
        let linux = Some(("linux", "amd64"));
        assert_eq!(select(&[linux, Some(("wasi", "wasm"))]), Ok(1));
        assert_eq!(select(&[Some(("wasi", "wasm32")), linux]), Ok(0));
        let all = [Some(("wasi", "wasm")), Some(("wasip1", "wasm")), Some(("wasip2", "wasm"))];
        assert_eq!(select(&all), Ok(2));
        assert_eq!(select(&[Some(("unknown", "unknown")), Some(("wasip1", "wasm"))]), Ok(1));
        assert_eq!(select(&[None]), Ok(0));
        let message = select(&[linux, Some(("linux", "arm64")), Some(("unknown", "unknown"))]).unwrap_err();
        assert_eq!(
            message,
            "has no Wasm variant: it offers linux/amd64, linux/arm64; build it for wasi/wasm"
        );
        assert!(select(&[]).unwrap_err().contains("no platform"));
        assert!(select(&[None, None]).is_err());
        assert_eq!(select(&[linux, None]), Ok(1));
    }

    #[test]
    fn an_artifact_in_an_index_is_known_by_its_type() {
        let entry = |name: &str, artifact_type: &str| {
            let mut entry = descriptor(name, None);
            entry["artifactType"] = json!(artifact_type);
            serde_json::from_value::<Descriptor>(entry).unwrap()
        };
        let wasm = entry("wasm", "application/vnd.wasm.config.v0+json");
        let entries = [entry("sbom", "application/spdx+json"), wasm.clone(), entry("x", "application/x")];
        assert_eq!(select_wasm(&entries).unwrap(), &wasm);
        assert!(select_wasm(&[wasm.clone(), wasm]).is_err());
    }
}
