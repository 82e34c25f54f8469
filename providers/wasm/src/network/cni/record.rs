//! What was added for which pod: one file each.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_provider::PodRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::NetworkList;
use super::result;

/// A pod's network: what it takes to remove it again, whatever becomes of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Attachment {
    pub(super) pod: PodRef,
    /// CNI's name for the pod. Never used again.
    pub(super) container_id: String,
    /// Where the pod's namespace is.
    pub(super) namespace: PathBuf,
    pub(super) network: NetworkList,
    /// The last plugin's result; none before it was there.
    pub(super) result: Option<Value>,
}

impl Attachment {
    pub(super) fn new(pod: &PodRef, network: NetworkList, namespaces: &Path) -> Self {
        let id = rand::random::<[u8; 16]>().map(|byte| format!("{byte:02x}")).concat();
        let namespace = namespaces.join(format!("coracle-{id}"));
        Self { pod: pod.clone(), container_id: id, namespace, network, result: None }
    }

    /// The pod's addresses, the first of each family.
    pub(super) fn ips(&self) -> Result<Vec<IpAddr>, String> {
        self.result.as_ref().map_or(Ok(vec![]), result::pod_ips)
    }
}

/// The folder of records.
#[derive(Debug)]
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// The UIDs of the pods with a record.
    pub(super) fn pods(&self) -> io::Result<Vec<String>> {
        let mut pods = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            pods.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        Ok(pods)
    }

    pub(super) fn read(&self, pod_uid: &str) -> io::Result<Option<Attachment>> {
        match fs::read(self.path(pod_uid)?) {
            Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes under another name and renames, so that there is never half a record.
    pub(super) fn write(&self, attachment: &Attachment) -> io::Result<()> {
        let path = self.path(&attachment.pod.uid)?;
        let unfinished = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(attachment)?)?;
        fs::rename(unfinished, path)
    }

    pub(super) fn remove(&self, pod_uid: &str) -> io::Result<()> {
        match fs::remove_file(self.path(pod_uid)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, pod_uid: &str) -> io::Result<PathBuf> {
        if pod_uid.is_empty() || pod_uid.starts_with('.') || pod_uid.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pod_uid:?} is no file name")));
        }
        Ok(self.0.join(format!("{pod_uid}.json")))
    }
}
