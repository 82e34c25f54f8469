//! Node taints, as `--register-with-taints` spells them (upstream's `pkg/util/taints`).

use serde_json::{Value, json};

use super::labels::{label_key_problems, label_value_problems};
use super::pflag::parts;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reads `key=value:Effect,key:Effect,…` as the `registerWithTaints` field.
pub(super) fn parse_flag(text: &str) -> Result<Value, String> {
    let mut taints: Vec<Value> = Vec::new();
    // `key-` removes a taint elsewhere; a node that is being created has none to remove.
    for spec in parts(text, ',').filter(|spec| !spec.ends_with('-')) {
        let taint = parse(spec)?;
        if taints.iter().any(|other| other["key"] == taint["key"] && other["effect"] == taint["effect"]) {
            return Err(format!("duplicated taints with the same key and effect: {spec}"));
        }
        taints.push(taint);
    }
    Ok(taints.into())
}

fn parse(spec: &str) -> Result<Value, String> {
    let invalid = || format!("invalid taint spec: {spec}");
    let (pair, effect) = spec.split_once(':').ok_or_else(invalid)?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if effect.contains(':') || value.contains('=') {
        return Err(invalid());
    }
    match problem(key, value, effect) {
        Some(problem) => Err(format!("{}, {problem}", invalid())),
        None => Ok(json!({"key": key, "value": value, "effect": effect})),
    }
}

/// What is wrong with a taint, if anything (`CheckTaintValidation`).
pub(super) fn problem(key: &str, value: &str, effect: &str) -> Option<String> {
    let mut problems = label_key_problems(key);
    problems.extend(label_value_problems(value));
    if !EFFECTS.contains(&effect) {
        problems.push(format!("invalid taint effect: {effect}, unsupported taint effect"));
    }
    (!problems.is_empty()).then(|| problems.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_with_and_without_values() {
        assert_eq!(
            parse_flag("example.com/wasm=true:NoSchedule,slow:NoExecute,gone-"),
            Ok(json!([
                {"key": "example.com/wasm", "value": "true", "effect": "NoSchedule"},
                {"key": "slow", "value": "", "effect": "NoExecute"},
            ]))
        );
        assert_eq!(parse_flag(""), Ok(json!([])));
    }

    #[test]
    fn refuses_what_upstream_refuses() {
        for spec in [
            "key",
            "key=a=b:NoSchedule",
            "a:b:NoSchedule",
            "key:Never",
            "-x:NoSchedule",
            "k=a b:NoSchedule",
            ":NoSchedule",
        ] {
            assert!(parse_flag(spec).is_err(), "{spec}");
        }
        assert!(parse_flag("a=1:NoSchedule,a=2:NoSchedule").is_err());
        assert!(parse_flag("a=1:NoSchedule,a=2:NoExecute").is_ok());
    }
}
