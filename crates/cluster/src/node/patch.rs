//! The patch that turns one Node into another (upstream: component-helpers `node/util/status.go`).

use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value, json};

/// The strategic merge patch, for the status subresource, that turns `old` into `new`: labels, annotations and status.
/// It fits no other Node of the same name.
pub(super) fn node_status_patch(old: &Node, new: &Node) -> Result<Value, serde_json::Error> {
    let (old, new) = (serde_json::to_value(old)?, serde_json::to_value(new)?);
    let mut patch = Map::new();
    let mut metadata = Map::new();
    for part in ["labels", "annotations"] {
        if let Some(difference) = difference(&old["metadata"][part], &new["metadata"][part]) {
            metadata.insert(part.to_owned(), difference);
        }
    }
    if let Some(uid) = old["metadata"].get("uid") {
        metadata.insert("uid".to_owned(), uid.clone());
    }
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if let Some(difference) = difference(&old["status"], &new["status"]) {
        patch.insert("status".to_owned(), status(difference, &old["status"], &new["status"]));
    }
    Ok(Value::Object(patch))
}

/// Lists in a patch replace lists, but for two that are merged by the type of their elements.
fn status(mut patch: Value, old: &Value, new: &Value) -> Value {
    if !patch["addresses"].is_null() {
        // There may be several of one type, which merging would take for one.
        let mut addresses = new["addresses"].as_array().cloned().unwrap_or_default();
        addresses.push(json!({"$patch": "replace"}));
        patch["addresses"] = Value::Array(addresses);
    }
    if !patch["conditions"].is_null() {
        let old = old["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let new = new["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        patch["conditions"] = new.iter().filter(|condition| !old.contains(condition)).cloned().collect();
    }
    patch
}

/// What to merge into `old` to get `new`; none if they are the same.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, value)| {
        Some((key.clone(), difference(old.get(key).unwrap_or(&Value::Null), value)?))
    });
    Some(removed.chain(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(metadata: Value, status: Value) -> Node {
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn a_patch_says_what_differs_and_nothing_else() {
        let old = node(
            json!({"uid": "u", "labels": {"a": "1", "b": "1"}}),
            json!({
                "capacity": {"cpu": "2", "gone": "1"},
                "conditions": [
                    {"type": "Theirs", "status": "True"},
                    {"type": "Ready", "status": "True", "reason": "x"},
                ],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "images": [{"names": ["a"]}],
                "volumesInUse": ["v"],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
            }),
        );
        let new = node(
            json!({"uid": "u", "labels": {"a": "2", "b": "1"}, "annotations": {"c": "3"}}),
            json!({
                "capacity": {"cpu": "4"},
                "conditions": [
                    {"type": "Theirs", "status": "True"},
                    {"type": "Ready", "status": "False", "reason": "y"},
                ],
                "addresses": [
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                ],
                "images": [{"names": ["b"]}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
            }),
        );
        assert_eq!(
            node_status_patch(&old, &new).unwrap(),
            json!({
                "metadata": {"uid": "u", "labels": {"a": "2"}, "annotations": {"c": "3"}},
                "status": {
                    "capacity": {"cpu": "4", "gone": null},
                    "conditions": [{"type": "Ready", "status": "False", "reason": "y"}],
                    "addresses": [
                        {"type": "InternalIP", "address": "10.0.0.1"},
                        {"type": "InternalIP", "address": "fd00::1"},
                        {"$patch": "replace"},
                    ],
                    "images": [{"names": ["b"]}],
                    "volumesInUse": null,
                },
            })
        );
        assert_eq!(node_status_patch(&old, &old).unwrap(), json!({"metadata": {"uid": "u"}}));
    }
}
