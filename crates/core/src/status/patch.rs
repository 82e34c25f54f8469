//! The strategic merge patch between two statuses (upstream: `PatchPodStatus` in `pkg/util/pod`).

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::{is_owned_by_kubelet, is_shared_by_kubelet};

/// Lists that the API merges by a key: only elements that differ are sent, or the list as a whole.
const MERGED_BY_TYPE: &str = "conditions";
const MERGED_BY_IP: [&str; 2] = ["podIPs", "hostIPs"];
/// Others write these; what is known here of them may be old.
const OF_OTHERS: [&str; 4] = [
    "extendedResourceClaimStatus",
    "nodeAllocatableResourceClaimStatuses",
    "nominatedNodeName",
    "resourceClaimStatuses",
];

/// What turns `old` into `new` on the pod with this UID; none if nothing does. What others write is left alone.
pub(super) fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (mut old, mut new) = (to_map(old), to_map(new));
    for key in OF_OTHERS {
        old.remove(key);
        new.remove(key);
    }
    let mut changes = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let change = if key == MERGED_BY_TYPE {
            changed_conditions(old.get(key), value)
        } else if MERGED_BY_IP.contains(&key.as_str()) {
            replace_list(value)
        } else {
            value.clone()
        };
        if change.as_array().is_none_or(|list| !list.is_empty()) {
            changes.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key) && *key != MERGED_BY_TYPE) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

fn to_map(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Conditions that are new or different; fields that went away are sent as null; what the kubelet no longer
/// says is deleted.
fn changed_conditions(old: Option<&Value>, new: &Value) -> Value {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let old = list(old);
    let is_ours = |condition: &Value| {
        let kind = condition["type"].as_str().unwrap_or_default();
        is_owned_by_kubelet(kind) || is_shared_by_kubelet(kind)
    };
    let new = list(Some(new));
    let kinds = old.iter().filter_map(|condition| condition["type"].as_str());
    let gone = kinds.filter(|kind| is_owned_by_kubelet(kind) && new.iter().all(|c| c["type"] != *kind));
    let gone: Vec<Value> = gone.map(|kind| json!({ "$patch": "delete", "type": kind })).collect();
    let changed = new.into_iter().filter(is_ours).filter(|condition| !old.contains(condition));
    let changed = changed.map(|mut condition| {
        let before = old.iter().find(|o| o.get("type") == condition.get("type")).and_then(Value::as_object);
        if let (Some(before), Some(fields)) = (before, condition.as_object_mut()) {
            for key in before.keys() {
                fields.entry(key.clone()).or_insert(Value::Null);
            }
        }
        condition
    });
    Value::Array(changed.chain(gone).collect())
}

fn replace_list(new: &Value) -> Value {
    let directive = json!({ "$patch": "replace" });
    Value::Array(new.as_array().into_iter().flatten().cloned().chain([directive]).collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    fn condition(kind: &str, status: &str, reason: Option<&str>) -> PodCondition {
        PodCondition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.map(Into::into),
            ..PodCondition::default()
        }
    }

    #[test]
    fn a_condition_that_is_over_is_deleted_and_those_of_others_stay() {
        let with = |kinds: &[&str]| PodStatus {
            conditions: Some(kinds.iter().map(|kind| condition(kind, "True", None)).collect()),
            ..PodStatus::default()
        };
        let old = with(&["Ready", "PodResizeInProgress", "example.com/other"]);
        let patch = status_patch("u", &old, &with(&["Ready"])).unwrap();
        let expected = json!([{ "$patch": "delete", "type": "PodResizeInProgress" }]);
        assert_eq!(patch["status"], json!({ "conditions": expected }));
    }

    #[test]
    fn only_differences_are_sent() {
        let old = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("Gone".into()),
            qos_class: Some("BestEffort".into()),
            conditions: Some(vec![
                condition("Ready", "False", Some("ContainersNotReady")),
                condition("PodScheduled", "True", None),
                condition("example.com/other", "True", None),
            ]),
            ..PodStatus::default()
        };
        let new = PodStatus {
            phase: Some("Running".into()),
            qos_class: Some("BestEffort".into()),
            conditions: Some(vec![condition("Ready", "True", None), condition("PodScheduled", "True", None)]),
            pod_ips: Some(vec![PodIP { ip: "10.0.0.1".into() }]),
            ..PodStatus::default()
        };
        let patch = status_patch("u", &old, &new);
        assert_eq!(
            patch,
            Some(json!({
                "metadata": { "uid": "u" },
                "status": {
                    "phase": "Running",
                    "reason": null,
                    "conditions": [{ "type": "Ready", "status": "True", "reason": null }],
                    "podIPs": [{ "ip": "10.0.0.1" }, { "$patch": "replace" }],
                }
            }))
        );
        assert_eq!(status_patch("u", &new, &new), None);
    }

    #[test]
    fn what_others_write_is_left_alone() {
        let with = |gate: &str, disrupted: &str, nominated: Option<&str>| PodStatus {
            conditions: Some(vec![
                condition("example.com/gate", gate, None),
                condition("DisruptionTarget", disrupted, None),
            ]),
            nominated_node_name: nominated.map(Into::into),
            ..PodStatus::default()
        };
        let (old, new) = (with("True", "True", Some("n")), with("False", "True", None));
        assert_eq!(status_patch("u", &old, &new), None);
        let shared = status_patch("u", &old, &with("False", "False", None)).unwrap();
        assert_eq!(
            shared["status"],
            json!({"conditions": [{"type": "DisruptionTarget", "status": "False"}]})
        );
    }
}
