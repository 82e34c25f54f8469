//! Pods from manifests of the node's own: decoding, defaults, and what they may not refer to
//! (upstream: `pkg/kubelet/config/common.go`).

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration, Volume};
use serde_json::Value;

use super::defaults::set_pod_defaults;
use super::manifest::{ManifestError, decode};
use super::validation::validate_pod;
use crate::pod::{CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION, PodExt, phase};
use crate::ports::ObjectKind;
use crate::references::references;

/// The largest manifest that is read, in bytes (`maxConfigLength`).
pub const MAX_MANIFEST_BYTES: u64 = 10 << 20;

/// The priority and its class that static pods should have, if any.
const NODE_CRITICAL: (i32, &str) = (2_000_001_000, "system-node-critical");

/// Where a manifest is from. Pods with the same manifest from two places are two pods.
#[derive(Clone, Copy, Debug)]
pub enum ManifestOrigin<'a> {
    /// A file of this node.
    File(&'a Path),
    /// A URL.
    Url(&'a str),
}

/// A pod of this node, and what its author should know about it.
#[derive(Clone, Debug)]
pub struct StaticPod {
    /// The pod, ready to run.
    pub pod: Arc<Pod>,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Makes the pod of a manifest, YAML or JSON (`tryDecodeSinglePod`). Of several documents the first one counts.
pub fn decode_static_pod(
    manifest: &[u8],
    origin: ManifestOrigin<'_>,
    node_name: &str,
) -> Result<StaticPod, ManifestError> {
    let (document, more) = first_document(manifest)?;
    match kind(&document) {
        ("v1", "Pod") => {}
        other => return Err(unexpected(other, "v1 Pod")),
    }
    let mut decoded = static_pod(document, origin, node_name)?;
    if more {
        decoded.warnings.push("it has several YAML documents, of which only the first is read".to_owned());
    }
    Ok(decoded)
}

/// Makes the pods of a manifest that is one Pod or a PodList (`tryDecodePodList`). One bad pod spoils the list.
pub fn decode_static_pods(
    manifest: &[u8],
    origin: ManifestOrigin<'_>,
    node_name: &str,
) -> Result<Vec<StaticPod>, ManifestError> {
    let (mut document, _) = first_document(manifest)?;
    match kind(&document) {
        ("v1", "Pod") => Ok(vec![decode_static_pod(manifest, origin, node_name)?]),
        ("v1", "PodList") => match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| static_pod(item, origin, node_name)).collect()
            }
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => Err(ManifestError::Malformed("items: not a list".to_owned())),
        },
        other => Err(unexpected(other, "v1 Pod or PodList")),
    }
}

/// The first document, and whether there are more.
fn first_document(manifest: &[u8]) -> Result<(Value, bool), ManifestError> {
    let malformed = |message: String| ManifestError::Malformed(message);
    if manifest.trim_ascii_start().starts_with(b"{") {
        let value = serde_json::from_slice(manifest).map_err(|e| malformed(format!("not JSON: {e}")))?;
        return Ok((value, false));
    }
    let text = std::str::from_utf8(manifest).map_err(|_| malformed("not UTF-8 text".to_owned()))?;
    // The parser shows the place over several lines; the first says what and where.
    let documents = serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let error = error.to_string();
        malformed(format!("not YAML: {}", error.lines().next().unwrap_or_default()))
    })?;
    let mut documents = documents.into_iter().filter(|document| !document.is_null());
    let first = documents.next().ok_or_else(|| malformed("it is empty".to_owned()))?;
    Ok((first, documents.next().is_some()))
}

fn kind(document: &Value) -> (&str, &str) {
    let text = |key| document.get(key).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion"), text("kind"))
}

fn unexpected((version, kind): (&str, &str), wanted: &str) -> ManifestError {
    ManifestError::Malformed(format!("apiVersion {version:?} and kind {kind:?} are not those of a {wanted}"))
}

fn static_pod(
    document: Value,
    origin: ManifestOrigin<'_>,
    node_name: &str,
) -> Result<StaticPod, ManifestError> {
    let (mut pod, unknown) = decode::<Pod>(document)?;
    apply_defaults(&mut pod, origin, node_name)?;
    let invalid = |message| ManifestError::Invalid { object: pod.display_name(), message };
    validate_pod(&pod).map_err(invalid)?;
    if pod.is_mirror() {
        let message = format!("metadata.annotations: {CONFIG_MIRROR_ANNOTATION} is the kubelet's own");
        return Err(invalid(message));
    }
    if let Some(resource) = api_object_reference(&pod) {
        return Err(invalid(format!("static pods may not reference {resource}")));
    }
    let unknown = unknown.map(|path| format!("unknown field {path:?} is ignored"));
    let warnings = unknown.into_iter().chain(priority_warning(&pod)).collect();
    Ok(StaticPod { pod: Arc::new(pod), warnings })
}

/// What the apiserver and the scheduler do to other pods, and a name and a UID of this node's own (`applyDefaults`).
fn apply_defaults(pod: &mut Pod, origin: ManifestOrigin<'_>, node_name: &str) -> Result<(), ManifestError> {
    if pod.name().is_empty() {
        return Err(ManifestError::Malformed("metadata.name: required".to_owned()));
    }
    set_pod_defaults(pod);
    let given = pod.metadata.uid.take().filter(|uid| !uid.is_empty());
    let uid = given.unwrap_or_else(|| generate_uid(pod, origin, node_name));
    pod.metadata.name = Some(format!("{}-{}", pod.name(), node_name.to_lowercase()));
    if pod.namespace().is_empty() {
        pod.metadata.namespace = Some("default".to_owned());
    }
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), uid.clone());
    pod.metadata.uid = Some(uid);
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
        if matches!(origin, ManifestOrigin::File(_)) {
            tolerate_no_execute(spec.tolerations.get_or_insert_default());
        }
    }
    pod.status = Some(PodStatus { phase: Some(phase::PENDING.to_owned()), ..PodStatus::default() });
    Ok(())
}

/// Problems of the node do not evict its own pods.
fn tolerate_no_execute(tolerations: &mut Vec<Toleration>) {
    let everything = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    if !tolerations.contains(&everything) {
        tolerations.push(everything);
    }
}

/// The hash of what the manifest says and where it is from: another manifest is another pod.
fn generate_uid(pod: &Pod, origin: ManifestOrigin<'_>, node_name: &str) -> String {
    // The fields of an object come in the same order whatever the order in the manifest.
    let mut hashed = serde_json::to_vec(pod).unwrap_or_default();
    match origin {
        ManifestOrigin::File(path) => {
            hashed.extend(format!("host:{node_name}").into_bytes());
            hashed.extend(format!("file:{}", path.display()).into_bytes());
        }
        ManifestOrigin::Url(url) => hashed.extend(format!("url:{url}").into_bytes()),
    }
    format!("{:032x}", fnv1a_128(&hashed))
}

/// FNV-1a with 128 bits.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// A kind of API object that a pod refers to: its node starts it without an apiserver (`HasAPIObjectReference`).
fn api_object_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.pod_spec();
    let is_set = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    if is_set(&spec.service_account_name) || is_set(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let kinds: Vec<ObjectKind> = references(pod).into_iter().map(|key| key.kind).collect();
    if kinds.contains(&ObjectKind::Secret) {
        return Some("secrets");
    }
    if kinds.contains(&ObjectKind::ConfigMap) {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(volume_reference)
}

fn volume_reference(volume: &Volume) -> Option<&'static str> {
    let sources = [
        (volume.config_map.is_some(), "configmaps (via configmap volumes)"),
        (volume.secret.is_some(), "secrets (via secret volumes)"),
        (volume.csi.is_some(), "csidrivers (via CSI volumes)"),
        (volume.glusterfs.is_some(), "endpoints (via glusterFS volumes)"),
        (volume.persistent_volume_claim.is_some(), "persistentvolumeclaims"),
        (volume.ephemeral.is_some(), "persistentvolumeclaims (via ephemeral volumes)"),
        (volume.azure_file.is_some(), "secrets (via azureFile volumes)"),
    ];
    if let Some((_, resource)) = sources.into_iter().find(|(is_used, _)| *is_used) {
        return Some(resource);
    }
    let projected = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
    projected.into_iter().flatten().find_map(|source| {
        let sources = [
            (source.config_map.is_some(), "configmaps (via projected volumes)"),
            (source.secret.is_some(), "secrets (via projected volumes)"),
            (source.service_account_token.is_some(), "serviceaccounts (via projected volumes)"),
            (source.cluster_trust_bundle.is_some(), "clustertrustbundles"),
            (source.pod_certificate.is_some(), "podcertificates"),
        ];
        sources.into_iter().find(|(is_used, _)| *is_used).map(|(_, resource)| resource)
    })
}

/// Priorities come from the apiserver, which these pods have not passed (`getStaticPodPriorityWarning`).
fn priority_warning(pod: &Pod) -> Option<String> {
    let spec = pod.pod_spec();
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    match spec.priority {
        None if class.is_empty() => None,
        None => Some(
            "priorityClassName has no effect without priority, and its mirror pod may be refused".to_owned(),
        ),
        Some(_) if class.is_empty() => {
            Some("priority is set without priorityClassName: its mirror pod may be refused".to_owned())
        }
        Some(priority) if (priority, class) == NODE_CRITICAL => None,
        Some(_) => Some(format!(
            "it has not priority {} and priorityClassName {}: others may try in vain to evict its mirror pod",
            NODE_CRITICAL.0, NODE_CRITICAL.1
        )),
    }
}

#[cfg(test)]
mod tests;
