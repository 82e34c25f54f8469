//! From the provider's types to CRI's, and back.

mod container;
mod linux;
mod sandbox;

pub(crate) use container::{container_config, container_state, container_status, linux_resources};
pub(crate) use sandbox::{sandbox_config, sandbox_state, sandbox_status};

use std::collections::{BTreeMap, HashMap};

use coracle_provider::{Error, Result};
use jiff::Timestamp;

/// The labels by which upstream knows whose a container is (`pkg/kubelet/types/labels.go`).
pub(crate) const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// Nanoseconds since 1970.
pub(crate) fn timestamp(nanos: i64) -> Result<Timestamp> {
    Timestamp::from_nanosecond(nanos.into())
        .map_err(|_| Error::internal(format!("the runtime says a time that there is not: {nanos} ns")))
}

/// As [`timestamp`]; 0 is never.
fn optional_timestamp(nanos: i64) -> Result<Option<Timestamp>> {
    if nanos == 0 { Ok(None) } else { timestamp(nanos).map(Some) }
}

fn to_map(texts: &BTreeMap<String, String>) -> HashMap<String, String> {
    texts.clone().into_iter().collect()
}

/// A path as the runtime is told it: CRI has texts only.
fn path_text(path: &std::path::Path) -> Result<String> {
    let text =
        path.to_str().ok_or_else(|| Error::invalid(format!("the path {} is not UTF-8", path.display())))?;
    Ok(text.to_owned())
}
