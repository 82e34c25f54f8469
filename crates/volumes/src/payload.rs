//! Turns content into files (`MakePayload`, `CollectData` and `collectData` of upstream's volume plugins).

use std::collections::BTreeMap;
use std::fmt;

use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::atomic_writer::clean_path;
use crate::pod::{Owner, to_id};
use crate::sources::Content;
use crate::spec::{ObjectSource, PayloadSpec, SourceSpec};

/// A token that belongs to one user, or to a group through `fsGroup`, is nobody else's.
const PRIVATE_MODE: i32 = 0o600;

/// One file. Its content may be secret and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FileProjection {
    pub(crate) data: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Whom it belongs to, if not to the agent's user.
    pub(crate) user: Option<u32>,
}

impl fmt::Debug for FileProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProjection")
            .field("mode", &format_args!("{:o}", self.mode))
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Files by their paths in the volume; the paths are clean.
pub(crate) type Payload = BTreeMap<String, FileProjection>;

/// The files of a volume. `contents` are those of the volume's sources, in order; where two sources give the same
/// file, the later one wins.
pub(crate) fn make_payload(
    volume: &PayloadSpec<'_>,
    contents: Vec<Content>,
    owner: Owner,
) -> Result<Payload, VolumeError> {
    let mut files = Builder { volume, payload: Payload::new() };
    for (source, content) in volume.sources.iter().zip(contents) {
        match (source, content) {
            (SourceSpec::ConfigMap(source), Content::ConfigMap(object)) => {
                let data = object.as_deref().map(config_map_data).unwrap_or_default();
                files.add_object("configMap", source, data)?;
            }
            (SourceSpec::Secret(source), Content::Secret(object)) => {
                let data = object.as_deref().map(secret_data).unwrap_or_default();
                files.add_object("secret", source, data)?;
            }
            (SourceSpec::DownwardApi(items), Content::Fields(values)) => {
                for (item, value) in items.iter().zip(values) {
                    files.add(&item.path, value.into_bytes(), item.mode, item.user)?;
                }
            }
            (SourceSpec::ServiceAccountToken(projection), Content::Token(token)) => {
                let user = projection.user.or(volume.default_user).or(owner.fs_user.map(Into::into));
                // With fsGroup, setting the volume's ownership makes 0640 of it.
                let mode = (user.is_some() || owner.fs_group.is_some()).then_some(PRIVATE_MODE);
                files.add(&projection.path, token.value().as_bytes().to_vec(), mode, user)?;
            }
            _ => unreachable!("contents come in the order of the sources"),
        }
    }
    Ok(files.payload)
}

type Data<'a> = BTreeMap<&'a str, &'a [u8]>;

fn config_map_data(object: &ConfigMap) -> Data<'_> {
    let text = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    // The API allows a key in one of them only.
    binary.chain(text).collect()
}

fn secret_data(object: &Secret) -> Data<'_> {
    object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

struct Builder<'a> {
    volume: &'a PayloadSpec<'a>,
    payload: Payload,
}

impl Builder<'_> {
    fn add_object(
        &mut self,
        kind: &str,
        source: &ObjectSource<'_>,
        data: Data<'_>,
    ) -> Result<(), VolumeError> {
        if source.items.is_empty() {
            return data.into_iter().try_for_each(|(key, value)| self.add(key, value.to_vec(), None, None));
        }
        for item in source.items {
            match data.get(item.key.as_str()) {
                Some(value) => self.add(&item.path, value.to_vec(), item.mode, item.user)?,
                None if source.optional => {}
                None => {
                    return Err(VolumeError::NotReady(format!(
                        "{kind} {:?} has no key {:?}; add it, or make the reference optional",
                        source.name, item.key
                    )));
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        path: &str,
        data: Vec<u8>,
        mode: Option<i32>,
        user: Option<i64>,
    ) -> Result<(), VolumeError> {
        let user = user.or(self.volume.default_user).map(|id| to_id("user", id)).transpose()?;
        let mode = mode.unwrap_or(self.volume.default_mode);
        let mode = u32::try_from(mode).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
            VolumeError::Invalid(format!("file mode {mode:#o} of {path:?} is not between 0 and 0777"))
        })?;
        self.payload.insert(clean_path(path)?, FileProjection { data, mode, user });
        Ok(())
    }
}
