//! Taints that a pod tolerates (upstream: `api/core/v1/toleration.go`, `component-helpers/scheduling/corev1`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The only effect that a kubelet cares for: the others are the scheduler's.
const NO_EXECUTE: &str = "NoExecute";

/// Whether every taint that lets nothing run is tolerated.
pub(super) fn tolerates_no_execute(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    let mut relevant = taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
    relevant.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// `ToleratesTaint`, without the comparisons by number (`TaintTolerationComparisonOperators`: alpha, off).
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_or_empty =
        |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == actual);
    if !is_or_empty(&toleration.effect, &taint.effect) || !is_or_empty(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_are_tolerated_by_key_effect_and_value() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoExecute"});
        let cases = [
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "", "operator": "Exists", "effect": ""}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "1"}), false),
        ];
        for (toleration, expected) in cases {
            let taints: Vec<Taint> = serde_json::from_value(json!([taint])).unwrap();
            let tolerations: Vec<Toleration> = serde_json::from_value(json!([toleration])).unwrap();
            assert_eq!(tolerates_no_execute(&tolerations, &taints), expected, "{toleration}");
        }
    }

    #[test]
    fn every_taint_without_execution_counts_and_no_other() {
        let taints = |effects: &[&str]| -> Vec<Taint> {
            effects.iter().map(|e| serde_json::from_value(json!({"key": e, "effect": e})).unwrap()).collect()
        };
        let one: Vec<Toleration> =
            vec![serde_json::from_value(json!({"key": "NoExecute", "operator": "Exists"})).unwrap()];
        assert!(tolerates_no_execute(&[], &taints(&["NoSchedule", "PreferNoSchedule"])));
        assert!(!tolerates_no_execute(&[], &taints(&["NoSchedule", "NoExecute"])));
        assert!(tolerates_no_execute(&one, &taints(&["NoSchedule", "NoExecute"])));
        let mut two = taints(&["NoExecute"]);
        two.push(serde_json::from_value::<Taint>(json!({"key": "x", "effect": "NoExecute"})).unwrap());
        assert!(!tolerates_no_execute(&one, &two));
    }
}
