//! What a strategic merge patch makes of a pod's status.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value};

/// The lists that are merged by a key; `$patch` replaces them, or deletes of them.
const MERGE_KEYS: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// The status with the patch applied.
pub(super) fn merged(status: &PodStatus, patch: &Value) -> Result<PodStatus, String> {
    let mut status = match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        other => return Err(format!("the status is no object: {other:?}")),
    };
    for (key, change) in patch.as_object().into_iter().flatten() {
        let merge_key = MERGE_KEYS.iter().find(|(list, _)| list == key).map(|(_, merge_key)| *merge_key);
        match (change, merge_key) {
            (Value::Null, _) => {
                status.remove(key);
            }
            (Value::Array(changes), Some(merge_key)) => {
                let old = status.remove(key);
                status.insert(key.clone(), merge_list(old, changes, merge_key));
            }
            _ => {
                status.insert(key.clone(), change.clone());
            }
        }
    }
    serde_json::from_value(Value::Object(status)).map_err(|error| error.to_string())
}

fn merge_list(old: Option<Value>, changes: &[Value], merge_key: &str) -> Value {
    let directive = |item: &Value| item.get("$patch").and_then(Value::as_str).map(str::to_owned);
    let items = changes.iter().filter(|item| directive(item).is_none());
    if changes.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Value::Array(items.cloned().collect());
    }
    let mut list = match old {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    for gone in changes.iter().filter(|item| directive(item).as_deref() == Some("delete")) {
        list.retain(|old| old.get(merge_key) != gone.get(merge_key));
    }
    for item in items {
        let fields = item.as_object().cloned().unwrap_or_default();
        match list.iter_mut().find(|old| old.get(merge_key) == item.get(merge_key)) {
            Some(Value::Object(old)) => merge_fields(old, fields),
            _ => {
                let mut new = Map::new();
                merge_fields(&mut new, fields);
                list.push(Value::Object(new));
            }
        }
    }
    Value::Array(list)
}

fn merge_fields(old: &mut Map<String, Value>, fields: Map<String, Value>) {
    for (key, value) in fields {
        if value.is_null() {
            old.remove(&key);
        } else {
            old.insert(key, value);
        }
    }
}
