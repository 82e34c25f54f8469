//! The feature gates that upstream's kubelet v1.37.2 knows. None of them switches anything here: names and locked values
//! are checked so that a file that upstream refuses is refused, and what is set otherwise gives a warning.

use serde_json::Value;

/// One gate a line: its name, its default, and `locked` where upstream allows no other value.
const KNOWN: &str = include_str!("../../upstream/feature_gates.txt");

/// Checks the gates that are set; `values` is the `featureGates` field.
pub(super) fn check(values: Option<&Value>, warnings: &mut Vec<String>, errors: &mut Vec<String>) {
    for (name, value) in values.and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_bool().unwrap_or(false);
        match find(name) {
            None => errors.push(format!("unrecognized feature gate: {name}")),
            Some(gate) if gate.default == value => {}
            Some(gate) if gate.locked => {
                let default = gate.default;
                errors.push(format!(
                    "cannot set feature gate {name} to {value}, feature is locked to {default}"
                ));
            }
            Some(_) => warnings.push(format!("feature gate {name}={value} has no effect in this version")),
        }
    }
}

struct Gate {
    default: bool,
    locked: bool,
}

fn find(name: &str) -> Option<Gate> {
    KNOWN.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
        Some(Gate { default: rest.starts_with("true"), locked: rest.ends_with("locked") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn known_gates_warn_where_they_differ_and_unknown_or_locked_ones_are_errors() {
        let gates = json!({
            "AllAlpha": true,
            "ContextualLogging": true,
            "EventedPLEG": true,
            "NodeSwap": false,
            "Evented": true,
        });
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        check(Some(&gates), &mut warnings, &mut errors);
        assert_eq!(
            warnings,
            [
                "feature gate AllAlpha=true has no effect in this version",
                "feature gate EventedPLEG=true has no effect in this version",
            ]
        );
        assert_eq!(
            errors,
            [
                "unrecognized feature gate: Evented",
                "cannot set feature gate NodeSwap to false, feature is locked to true",
            ]
        );
    }
}
