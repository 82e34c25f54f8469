//! Label keys and values, and which labels a node may give itself (upstream's `apimachinery/pkg/api/validate/content`
//! and `kubelet/pkg/apis`).

use std::collections::BTreeMap;

const KEY_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Labels in Kubernetes' own namespaces that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// What is wrong with a label key; empty if nothing is.
pub(super) fn label_key_problems(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {KEY_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(
                    subdomain_problems(prefix).into_iter().map(|problem| format!("prefix part {problem}")),
                );
            }
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        problems.push(format!("name part {KEY_RULE}"));
    }
    problems
}

/// What is wrong with a label value; empty if nothing is.
pub(super) fn label_value_problems(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push("must be no more than 63 bytes".to_owned());
    }
    if !value.is_empty() && !is_name(value) {
        problems.push(VALUE_RULE.to_owned());
    }
    problems
}

/// Checks `--node-labels` as `ValidateKubeletFlags` does: all keys and values, and which namespaces are allowed.
pub(super) fn check_node_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let unknown: Vec<_> = labels
        .keys()
        .filter(|key| is_kubernetes_label(key) && !is_kubelet_label(key))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]; --node-labels in the \
             'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
            unknown.join(" "),
            KUBELET_NAMESPACES.join(", "),
            KUBELET_LABELS.join(", ")
        ));
    }
    let keys = labels.keys().map(|key| (key, label_key_problems(key)));
    let values = labels.values().map(|value| (value, label_value_problems(value)));
    let invalid: Vec<_> = keys
        .chain(values)
        .filter(|(_, problems)| !problems.is_empty())
        .map(|(text, problems)| format!("'{text}' - {}", problems.join(", ")))
        .collect();
    if invalid.is_empty() { Ok(()) } else { Err(format!("invalid node labels: {}", invalid.join("; "))) }
}

fn namespace(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn is_in(namespace: &str, parent: &str) -> bool {
    namespace.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_kubernetes_label(key: &str) -> bool {
    ["kubernetes.io", "k8s.io"].iter().any(|parent| is_in(namespace(key), parent))
}

fn is_kubelet_label(key: &str) -> bool {
    KUBELET_LABELS.contains(&key) || KUBELET_NAMESPACES.iter().any(|parent| is_in(namespace(key), parent))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|byte| byte.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn subdomain_problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > 253 {
        problems.push("must be no more than 253 bytes".to_owned());
    }
    let is_label =
        |label: &str| is_name(label) && !label.contains(|c: char| c.is_ascii_uppercase() || c == '_');
    if !text.split('.').all(is_label) {
        problems.push(SUBDOMAIN_RULE.to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str) -> Result<(), String> {
        check_node_labels(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn a_node_may_set_its_own_labels_and_the_allowed_ones_of_kubernetes() {
        for key in [
            "zone",
            "example.com/disk",
            "node.kubernetes.io/pool",
            "foo.node.kubernetes.io/pool",
            "kubelet.kubernetes.io/x",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "notk8s.io/x",
        ] {
            assert_eq!(check(key, "v1.2_3-x"), Ok(()), "{key}");
        }
    }

    #[test]
    fn it_may_not_set_others_of_kubernetes() {
        for key in ["kubernetes.io/role", "node-role.kubernetes.io/master", "k8s.io/x", "a.k8s.io/x"] {
            let message = check(key, "").unwrap_err();
            assert!(
                message.starts_with(&format!(
                    "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{key}]"
                )),
                "{message}"
            );
        }
    }

    #[test]
    fn malformed_labels_say_which_part_is_wrong() {
        for (key, value, part) in [
            ("", "", "'' - name part must be non-empty"),
            ("/x", "", "prefix part must be non-empty"),
            ("Example.com/x", "", "prefix part a lowercase RFC 1123 subdomain"),
            ("a/b/c", "", "a valid label key must consist"),
            ("-x", "", "name part must consist"),
            ("x", "a b", "'a b' - a valid label must be an empty string"),
        ] {
            let message = check(key, value).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        assert!(check(&"x".repeat(64), "").is_err());
        assert!(check("x", &"v".repeat(64)).is_err());
    }
}
