//! Whether a node is one that a pod wants (upstream: `component-helpers/scheduling/corev1/nodeaffinity`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::fieldpath::validate_qualified_name;
use crate::pod::PodExt;

type Labels = BTreeMap<String, String>;

/// Node selector and required node affinity (`GetRequiredNodeAffinity(pod).Match`).
pub(super) fn matches_node(pod: &Pod, node: &Node) -> bool {
    let none = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let spec = pod.pod_spec();
    let mut selector = spec.node_selector.iter().flatten();
    if !selector.all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|t| matches_term(t, labels, node)))
}

/// All of a term must hold; an empty one never does, nor one with something that is not valid.
fn matches_term(term: &NodeSelectorTerm, labels: &Labels, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels_match = expressions.iter().all(|e| is_valid(e) && matches_label(e, labels));
    // A node without a name has no fields to look at.
    let by_field = |requirement: &NodeSelectorRequirement| {
        matches_field(requirement, name).is_some_and(|m| m || name.is_empty())
    };
    labels_match && fields.iter().all(by_field)
}

/// `labels.NewRequirement`.
fn is_valid(requirement: &NodeSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let counts = match requirement.operator.as_str() {
        "In" | "NotIn" => !values.is_empty(),
        "Exists" | "DoesNotExist" => values.is_empty(),
        "Gt" | "Lt" => values.len() == 1 && values[0].parse::<i64>().is_ok(),
        _ => false,
    };
    let is_label_value = |value: &String| value.is_empty() || is_plain_name(value);
    counts && validate_qualified_name(&requirement.key).is_ok() && values.iter().all(is_label_value)
}

fn is_plain_name(value: &str) -> bool {
    !value.contains('/') && validate_qualified_name(value).is_ok()
}

fn matches_label(requirement: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let actual = labels.get(&requirement.key);
    let compare = |holds: fn(i64, i64) -> bool| {
        let wanted = values.first().and_then(|v| v.parse().ok());
        let actual = actual.and_then(|v| v.parse().ok());
        actual.zip(wanted).is_some_and(|(actual, wanted)| holds(actual, wanted))
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(|value| values.contains(value)),
        "NotIn" => actual.is_none_or(|value| !values.contains(value)),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(|actual, wanted| actual > wanted),
        "Lt" => compare(|actual, wanted| actual < wanted),
        _ => false,
    }
}

/// The only field of a node is `metadata.name`; any other is empty. None if the requirement is not valid.
fn matches_field(requirement: &NodeSelectorRequirement, node_name: &str) -> Option<bool> {
    let [value] = requirement.values.as_deref()? else { return None };
    let actual = if requirement.key == "metadata.name" { node_name } else { "" };
    match requirement.operator.as_str() {
        "In" => Some(actual == value),
        "NotIn" => Some(actual != value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matches(spec: &Value, labels: &Value) -> bool {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": labels}})).unwrap();
        matches_node(&pod, &node)
    }

    fn terms(terms: Value) -> Value {
        json!({"containers": [], "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        terms(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    }

    #[test]
    fn selectors_match_labels() {
        let labels = json!({"foo": "bar", "num": "7", "text": "x7"});
        let fields = |operator: &str, key: &str, values: &[&str]| {
            terms(json!([{"matchFields": [{"key": key, "operator": operator, "values": values}]}]))
        };
        let cases = [
            (json!({"containers": []}), true),
            (json!({"containers": [], "nodeSelector": {"foo": "bar"}}), true),
            (json!({"containers": [], "nodeSelector": {"foo": "baz"}}), false),
            (json!({"containers": [], "nodeSelector": {"foo": "bar", "other": "x"}}), false),
            (expression("foo", "In", &["bar", "value2"]), true),
            (expression("foo", "In", &["value2"]), false),
            (expression("other", "In", &["bar"]), false),
            (expression("foo", "NotIn", &["bar"]), false),
            (expression("other", "NotIn", &["bar"]), true),
            (expression("foo", "Exists", &[]), true),
            (expression("other", "Exists", &[]), false),
            (expression("other", "DoesNotExist", &[]), true),
            (expression("foo", "DoesNotExist", &[]), false),
            (expression("num", "Gt", &["6"]), true),
            (expression("num", "Gt", &["7"]), false),
            (expression("num", "Lt", &["8"]), true),
            (expression("text", "Gt", &["6"]), false),
            (expression("other", "Lt", &["6"]), false),
            // What is not valid matches nothing.
            (expression("other", "NotIn", &["invalid value: ___@#$%^"]), false),
            (expression("other", "NotIn", &[]), false),
            (expression("foo", "Exists", &["x"]), false),
            (expression("num", "Gt", &["six"]), false),
            (expression("foo", "Is", &["bar"]), false),
            (expression("not a key", "DoesNotExist", &[]), false),
            // Terms are alternatives, and an empty one matches nothing.
            (terms(json!([])), false),
            (terms(json!([{}])), false),
            (terms(json!([{}, {"matchExpressions": [{"key": "foo", "operator": "Exists"}]}])), true),
            (
                terms(json!([{"matchExpressions": [{"key": "foo", "operator": "Exists"},
                    {"key": "other", "operator": "Exists"}]}])),
                false,
            ),
            (fields("In", "metadata.name", &["n1"]), true),
            (fields("In", "metadata.name", &["n2"]), false),
            (fields("NotIn", "metadata.name", &["n2"]), true),
            (fields("In", "metadata.name", &["n1", "n2"]), false),
            (fields("Exists", "metadata.name", &["n1"]), false),
            (fields("In", "metadata.uid", &["n1"]), false),
        ];
        for (spec, expected) in cases {
            assert_eq!(matches(&spec, &labels), expected, "{spec}");
        }
    }

    #[test]
    fn both_selector_and_affinity_must_match() {
        let mut spec = expression("foo", "Exists", &[]);
        spec["nodeSelector"] = json!({"a": "b"});
        assert!(!matches(&spec, &json!({"foo": "bar"})));
        assert!(!matches(&spec, &json!({"a": "b"})));
        assert!(matches(&spec, &json!({"a": "b", "foo": "bar"})));
    }
}
