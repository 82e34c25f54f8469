//! Reading objects, and finding the fields in them that do not exist.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a manifest is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not of the shape of its kind.
    #[error("{0}")]
    Malformed(String),
    /// It has a field that its kind does not have.
    #[error("unknown field {path:?}")]
    UnknownField {
        /// Where, as in `spec.containers[0].comand`.
        path: String,
    },
    /// It breaks a rule of its kind.
    #[error("{object}: {message}")]
    Invalid {
        /// Which object.
        object: String,
        /// Which rule.
        message: String,
    },
}

/// Decodes an object and refuses fields that it does not know, as `kubectl --validate=strict` does.
pub fn decode_strict<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, ManifestError> {
    match decode(value)? {
        (_, Some(path)) => Err(ManifestError::UnknownField { path }),
        (decoded, None) => Ok(decoded),
    }
}

/// Decodes an object, and names the first field that it does not know and leaves out.
pub(super) fn decode<T: DeserializeOwned + Serialize>(
    value: Value,
) -> Result<(T, Option<String>), ManifestError> {
    let decoded: T = serde_path_to_error::deserialize(value.clone()).map_err(|e| {
        let path = e.path().to_string();
        ManifestError::Malformed(format!("{path}: {}", e.into_inner()))
    })?;
    // What was understood comes out again; what does not come out was not understood.
    let understood = serde_json::to_value(&decoded).map_err(|e| ManifestError::Malformed(e.to_string()))?;
    Ok((decoded, first_unknown(&value, &understood, String::new())))
}

fn first_unknown(given: &Value, understood: &Value, path: String) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match understood.get(key) {
                Some(known) => first_unknown(value, known, path),
                // An absent value says as much as null.
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(i, (value, known))| first_unknown(value, known, format!("{path}[{i}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_field_is_named_with_its_place() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"containers": [{"name": "a", "image": "i", "comand": ["x"]}]}});
        let error = decode_strict::<Pod>(pod).unwrap_err();
        assert_eq!(error.to_string(), "unknown field \"spec.containers[0].comand\"");
    }

    #[test]
    fn a_good_manifest_is_taken() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": 1}},
            "ports": [{"containerPort": 80}]}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        assert!(decode_strict::<Pod>(pod).is_ok());
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "image": ["i"]}]}});
        let error = decode_strict::<Pod>(pod).unwrap_err().to_string();
        assert!(error.starts_with("spec.containers[0].image: "), "{error}");
    }
}
