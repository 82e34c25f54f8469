//! What is remembered about pulls, in upstream's files (upstream: `fs_pullrecords.go`; types in
//! `kubelet.config.k8s.io/v1beta1`): `pulling/sha256-…` while an image is pulled, `pulled/sha256-…` afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::credential_provider::Coordinates;
use crate::whole_file::{self, TEMPORARY};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// What older kubelets wrote; the same but for the name.
const OLDER_API_VERSION: &str = "kubelet.config.k8s.io/v1alpha1";
const PREFIX: &str = "sha256-";

/// An image that was pulled, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImagePulledRecord {
    kind: String,
    api_version: String,
    pub(super) last_updated_time: Timestamp,
    pub(super) image_ref: String,
    /// By the name that pods gave the image, without tag and digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) credential_mapping: BTreeMap<String, ImagePullCredentials>,
}

/// Credentials that an image was pulled with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ImagePullCredentials {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kubernetes_secrets: Vec<ImagePullSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kubernetes_service_accounts: Vec<Coordinates>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) node_pods_accessible: bool,
}

/// A pull secret, and which of its credentials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImagePullSecret {
    #[serde(flatten)]
    pub(super) coordinates: Coordinates,
    pub(super) credential_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImagePullIntent {
    kind: String,
    api_version: String,
    image: String,
}

impl ImagePulledRecord {
    pub(super) fn new(image_ref: &str, now: Timestamp) -> Self {
        Self {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: now,
            image_ref: image_ref.to_owned(),
            credential_mapping: BTreeMap::new(),
        }
    }
}

/// The two folders. All functions block.
#[derive(Debug)]
pub(super) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
}

impl Records {
    /// Opens `image_manager` in the kubelet's folder.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = root.join("image_manager");
        let records = Self { pulling: folder.join("pulling"), pulled: folder.join("pulled") };
        for folder in [&records.pulling, &records.pulled] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(records)
    }

    /// Images whose pulls were begun and are not known to have ended, and files that do not parse.
    pub(super) fn intents(&self) -> io::Result<(Vec<String>, Vec<FileName>)> {
        let (intents, unreadable) = read_all::<ImagePullIntent>(&self.pulling)?;
        Ok((intents.into_iter().map(|intent| intent.image).collect(), unreadable))
    }

    pub(super) fn write_intent(&self, image: &str) -> io::Result<()> {
        let intent = ImagePullIntent {
            kind: "ImagePullIntent".to_owned(),
            api_version: API_VERSION.to_owned(),
            image: image.to_owned(),
        };
        write(&self.pulling, image, &intent)
    }

    pub(super) fn delete_intent(&self, image: &str) -> io::Result<()> {
        delete(&self.pulling, image)
    }

    /// All images that were pulled, and files that do not parse.
    pub(super) fn pulled(&self) -> io::Result<(Vec<ImagePulledRecord>, Vec<FileName>)> {
        read_all(&self.pulled)
    }

    pub(super) fn write_pulled(&self, record: &ImagePulledRecord) -> io::Result<()> {
        write(&self.pulled, &record.image_ref, record)
    }

    pub(super) fn delete_pulled(&self, image_ref: &str) -> io::Result<()> {
        delete(&self.pulled, image_ref)
    }
}

/// The name of a record's file, which tells what it is about to those who know it already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileName(String);

impl FileName {
    /// That of the record about an image or an image's id (`cacheFilename`).
    pub(super) fn of(key: &str) -> Self {
        Self(format!("{PREFIX}{:x}", Sha256::digest(key)))
    }
}

/// Reads every record of a folder, and names those that do not parse.
fn read_all<T: DeserializeOwned>(folder: &Path) -> io::Result<(Vec<T>, Vec<FileName>)> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_temporary = path.extension().is_some_and(|extension| extension == TEMPORARY);
        if !name.starts_with(PREFIX) || is_temporary {
            continue;
        }
        match serde_json::from_slice::<serde_json::Value>(&fs::read(&path)?).and_then(checked) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a record of a pull does not parse");
                unreadable.push(FileName(name));
            }
        }
    }
    Ok((records, unreadable))
}

fn checked<T: DeserializeOwned>(value: serde_json::Value) -> serde_json::Result<T> {
    use serde::de::Error;
    let version = value.get("apiVersion").and_then(|version| version.as_str()).unwrap_or_default();
    if ![API_VERSION, OLDER_API_VERSION].contains(&version) {
        return Err(serde_json::Error::custom(format!("its apiVersion is {version:?}")));
    }
    serde_json::from_value(value)
}

fn write(folder: &Path, key: &str, record: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(record)?;
    bytes.push(b'\n');
    whole_file::replace(&folder.join(FileName::of(key).0), &bytes)
}

fn delete(folder: &Path, key: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(FileName::of(key).0)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_upstream_s() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(root.path()).unwrap();
        records.write_intent("docker.io/testing/test:latest").unwrap();
        let mut record = ImagePulledRecord::new("testimageref", "2025-01-02T03:04:05Z".parse().unwrap());
        let secret = ImagePullSecret {
            coordinates: Coordinates { namespace: "n".into(), name: "s".into(), uid: "u".into() },
            credential_hash: "h".into(),
        };
        let credentials = ImagePullCredentials { kubernetes_secrets: vec![secret], ..Default::default() };
        record.credential_mapping.insert("docker.io/testing/test".into(), credentials);
        records.write_pulled(&record).unwrap();

        let folder = root.path().join("image_manager");
        // The name is the SHA-256 of the image, as `sha256sum` has it.
        let name = "sha256-aef2af226629a35d5f3ef0fdbb29fdbebf038d0acd8850590e8c48e1e283aa56";
        assert_eq!(FileName::of("docker.io/testing/test:latest").0, name);
        assert!(folder.join("pulling").join(name).is_file());
        let pulled = fs::read_to_string(folder.join("pulled").join(FileName::of("testimageref").0)).unwrap();
        assert_eq!(
            pulled,
            "{\"kind\":\"ImagePulledRecord\",\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\
             \"lastUpdatedTime\":\"2025-01-02T03:04:05Z\",\"imageRef\":\"testimageref\",\"credentialMapping\":\
             {\"docker.io/testing/test\":{\"kubernetesSecrets\":[{\"namespace\":\"n\",\"name\":\"s\",\"uid\":\"u\",\
             \"credentialHash\":\"h\"}]}}}\n"
        );
        assert_eq!(records.pulled().unwrap(), (vec![record], vec![]));
        assert_eq!(records.intents().unwrap().0, ["docker.io/testing/test:latest"]);
        records.delete_intent("docker.io/testing/test:latest").unwrap();
        records.delete_intent("docker.io/testing/test:latest").unwrap();
        assert!(records.intents().unwrap().0.is_empty());
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(root.path()).unwrap();
        let folder = root.path().join("image_manager/pulling");
        for (name, content) in [
            ("sha256-00", "{"),
            ("sha256-01", "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"v9\",\"image\":\"a\"}"),
            (
                "sha256-02.tmp",
                "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\"image\":\"b\"}",
            ),
            (
                "sha256-03",
                "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"kubelet.config.k8s.io/v1alpha1\",\"image\":\"c\"}",
            ),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
        let (intents, mut unreadable) = records.intents().unwrap();
        unreadable.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(intents, ["c"]);
        assert_eq!(unreadable, [FileName("sha256-00".to_owned()), FileName("sha256-01".to_owned())]);
    }
}
