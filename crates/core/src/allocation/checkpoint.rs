//! The files that allocations are kept in, byte for byte as upstream writes them (`allocation/state/checkpoint.go`,
//! `checkpointmanager`), so that either kubelet goes on where the other one stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Deserializer, Serialize};

use super::state::PodResourceInfo;
use crate::fieldpath::ResourceList;
use crate::go_format;
use crate::quantity::Quantity;
use crate::whole_file;

/// Why a file of allocations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// It is not what was written. Guessing could give pods away what others have.
    #[error(
        "cannot read the pods' resources from {}: {reason}; drain this node and delete the file before starting again",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// Pods by UID.
pub(super) type Entries = BTreeMap<String, PodResourceInfo>;

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    data: String,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
struct Data {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, deserialize_with = "null_is_empty")]
    container_resources: BTreeMap<String, Requirements>,
    pod_level_resources: Option<Requirements>,
    empty_dir_volume_limits: Option<BTreeMap<String, Option<ApiQuantity>>>,
}

/// Requirements with their fields in Go's order; empty lists are left out.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Requirements {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<ResourceList>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<ResourceList>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<Vec<ResourceClaim>>,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a file. None if there is none; an empty one is what is left when the machine went down at the wrong moment,
/// and whatever ran then runs no more.
pub(super) fn read(path: &Path) -> Result<Option<Entries>, CheckpointError> {
    let text = match fs::read_to_string(path) {
        Ok(text) if text.is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::Io { path: path.into(), error }),
    };
    let corrupt = |reason: String| CheckpointError::Corrupt { path: path.into(), reason };
    let checkpoint: Checkpoint = serde_json::from_str(&text).map_err(|e| corrupt(e.to_string()))?;
    let actual = u64::from(go_format::hash_string(&checkpoint.data));
    if actual != checkpoint.checksum {
        return Err(corrupt(format!("the checksum is {actual}, not {}", checkpoint.checksum)));
    }
    let data: Data = serde_json::from_str(&checkpoint.data).map_err(|e| corrupt(e.to_string()))?;
    Ok(Some(data.entries.into_iter().map(|(uid, entry)| (uid, entry.into())).collect()))
}

/// Replaces a file. Containers do not outlive the machine, so it need not either.
pub(super) fn write(path: &Path, entries: &Entries) -> Result<(), CheckpointError> {
    let io = |error| CheckpointError::Io { path: path.into(), error };
    let text = encode(entries).map_err(|e| io(e.into()))?;
    whole_file::replace(path, text.as_bytes()).map_err(io)
}

fn encode(entries: &Entries) -> serde_json::Result<String> {
    let entries = entries.iter().map(|(uid, info)| (uid.clone(), Entry::from(info))).collect();
    let data = go_format::json(&Data { entries })?;
    let checksum = u64::from(go_format::hash_string(&data));
    go_format::json(&Checkpoint { data, checksum })
}

impl From<&PodResourceInfo> for Entry {
    fn from(info: &PodResourceInfo) -> Self {
        let volumes = info.empty_dir_volume_limits.as_ref().map(|limits| {
            limits.iter().map(|(name, limit)| (name.clone(), limit.as_ref().map(canonical))).collect()
        });
        Self {
            container_resources: info.containers.iter().map(|(n, r)| (n.clone(), r.into())).collect(),
            pod_level_resources: info.pod_level.as_ref().map(Into::into),
            empty_dir_volume_limits: volumes,
        }
    }
}

impl From<Entry> for PodResourceInfo {
    fn from(entry: Entry) -> Self {
        Self {
            containers: entry.container_resources.into_iter().map(|(n, r)| (n, r.into())).collect(),
            pod_level: entry.pod_level_resources.map(Into::into),
            empty_dir_volume_limits: entry.empty_dir_volume_limits,
        }
    }
}

impl From<&ResourceRequirements> for Requirements {
    fn from(requirements: &ResourceRequirements) -> Self {
        let list = |list: &Option<ResourceList>| {
            let list = list.as_ref().filter(|l| !l.is_empty())?;
            Some(list.iter().map(|(name, quantity)| (name.clone(), canonical(quantity))).collect())
        };
        Self {
            limits: list(&requirements.limits),
            requests: list(&requirements.requests),
            claims: requirements.claims.clone().filter(|claims| !claims.is_empty()),
        }
    }
}

impl From<Requirements> for ResourceRequirements {
    fn from(requirements: Requirements) -> Self {
        let Requirements { limits, requests, claims } = requirements;
        Self { limits, requests, claims }
    }
}

/// A quantity as Go writes it. What does not parse, nobody could have allocated.
fn canonical(quantity: &ApiQuantity) -> ApiQuantity {
    Quantity::try_from(quantity).map_or_else(|_| quantity.clone(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by upstream's `state.NewStateCheckpoint`.
    const FILES: [&str; 2] =
        [include_str!("testdata/allocated_pods_state"), include_str!("testdata/actuated_pods_state")];

    #[test]
    fn files_of_the_go_kubelet_are_read_and_written_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for text in FILES {
            fs::write(&path, text).unwrap();
            let entries = read(&path).unwrap().unwrap();
            assert!(!entries.is_empty());
            fs::remove_file(&path).unwrap();
            write(&path, &entries).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["state"], "nothing is left behind");
    }

    #[test]
    fn what_was_read_is_what_was_allocated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, FILES[0]).unwrap();
        let entries = read(&path).unwrap().unwrap();
        let pod = &entries["0a1b2c3d-2222-4d0e-9a53-0d0e6f3b7a02"];
        assert_eq!(pod.pod_level.as_ref().unwrap().limits.as_ref().unwrap()["memory"].0, "1Gi");
        assert_eq!(pod.containers["claims"].claims.as_ref().unwrap()[1].request.as_deref(), Some("first"));
        assert!(pod.containers.contains_key("odd <&> \"name\" \\ ü \u{2028}"));
        let volumes = entries["static0123456789"].empty_dir_volume_limits.as_ref().unwrap();
        assert_eq!(
            (volumes["none"].as_ref(), volumes["scratch"].as_ref().unwrap().0.as_str()),
            (None, "32Mi")
        );
    }

    #[test]
    fn a_file_that_was_changed_is_refused_and_none_or_an_empty_one_is_a_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(read(&path).unwrap().is_none());
        for text in [FILES[0].replace("128Mi", "129Mi"), "{}".to_owned(), "x".to_owned()] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("drain this node and delete the file"), "{error}");
        }
    }
}
