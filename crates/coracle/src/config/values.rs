//! The values of a configuration while its sources are laid over each other.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::field::{Kind, is_zero};
use super::fields::FIELDS;

/// Configuration values by their JSON names, all of them checked against the table of fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values(Map<String, Value>);

impl Values {
    /// The values of the file given by `--config`: nulls are unset, relative paths start at the file's directory.
    pub(super) fn from_main_file(document: Map<String, Value>, directory: &Path) -> Self {
        let mut values = Self(without_nulls(document));
        for field in FIELDS.iter().filter(|field| field.kind == Kind::Path) {
            let absolute =
                values.text(field.path).filter(|path| !path.is_empty()).map(|path| directory.join(path));
            if let Some(absolute) = absolute {
                values.set(field.path, absolute.to_string_lossy().into());
            }
        }
        values
    }

    /// Lays a drop-in over these values as a JSON merge patch (RFC 7386): objects merge, null unsets, the rest replaces.
    pub(super) fn merge(&mut self, patch: Map<String, Value>) {
        merge(&mut self.0, patch);
    }

    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let start = self.0.get(first);
        rest.split('.').filter(|name| !name.is_empty()).fold(start, |value, name| value?.get(name))
    }

    pub(super) fn set(&mut self, path: &str, value: Value) {
        let mut object = &mut self.0;
        let (parents, leaf) = path.rsplit_once('.').unwrap_or(("", path));
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            let entry = object.entry(name).or_insert_with(|| Map::new().into());
            if !entry.is_object() {
                *entry = Map::new().into();
            }
            let Value::Object(inner) = entry else { return };
            object = inner;
        }
        object.insert(leaf.to_owned(), value);
    }

    /// A text, and the empty one for a field that is unset.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.get(path).and_then(Value::as_str)
    }

    /// A whole number, and zero for a field that is unset.
    pub(super) fn int(&self, path: &str) -> i64 {
        self.get(path).and_then(Value::as_i64).unwrap_or(0)
    }

    /// A boolean, and false for a field that is unset.
    pub(super) fn bool(&self, path: &str) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Texts by name; none for a field that is unset.
    pub(super) fn texts(&self, path: &str) -> BTreeMap<String, String> {
        let object = self.get(path).and_then(Value::as_object).into_iter().flatten();
        object.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
    }

    /// Gives every unset field its default (`SetDefaults_KubeletConfiguration`).
    ///
    /// `standalone` says that there is no apiserver to ask about tokens and permissions: then neither is asked unless
    /// the configuration says so, and only client certificates are let in.
    pub(super) fn fill_defaults(&mut self, standalone: bool) {
        if standalone {
            self.fill("authentication.webhook.enabled", false, false.into());
            self.fill("authorization.mode", true, "AlwaysAllow".into());
        }
        // Upstream lets the report follow an update frequency that was set alone.
        if let Some(update) = self.get("nodeStatusUpdateFrequency").filter(|value| !is_zero(value)).cloned() {
            self.fill("nodeStatusReportFrequency", true, update);
        }
        if self.int("maxParallelImagePulls") > 1 {
            self.fill("serializeImagePulls", false, false.into());
        }
        if self.bool("mergeDefaultEvictionSettings") {
            self.merge_default_thresholds();
        }
        for field in FIELDS {
            if let Some(default) = field.unset.default_value() {
                self.fill(field.path, matches!(field.unset, super::field::Unset::ZeroMeans(_)), default);
            }
        }
    }

    /// Thresholds that were set stay (`mergeDefaultEvictionSettings`).
    fn merge_default_thresholds(&mut self) {
        const HARD: &str = "evictionHard";
        let default =
            FIELDS.iter().find(|field| field.path == HARD).and_then(|field| field.unset.default_value());
        let (Some(Value::Object(mut all)), Some(Value::Object(own))) = (default, self.get(HARD).cloned())
        else {
            return;
        };
        all.extend(own);
        self.set(HARD, all.into());
    }

    fn fill(&mut self, path: &str, zero_is_unset: bool, default: Value) {
        let unset = self.get(path).is_none_or(|value| zero_is_unset && is_zero(value));
        if unset {
            self.set(path, default);
        }
    }

    pub(super) fn into_json(self) -> Value {
        self.0.into()
    }
}

fn without_nulls(object: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    merge(&mut kept, object);
    kept
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(patch) => match target.entry(name).or_insert_with(|| Map::new().into()) {
                Value::Object(object) => merge(object, patch),
                other => *other = without_nulls(patch).into(),
            },
            value => {
                target.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(json: Value) -> Values {
        match json {
            Value::Object(map) => Values(map),
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn a_drop_in_merges_objects_replaces_lists_and_unsets_with_null() {
        let mut base =
            values(json!({"evictionHard": {"a": "1", "b": "2"}, "clusterDNS": ["10.0.0.1"], "maxPods": 5}));
        base.merge(
            values(
                json!({"evictionHard": {"a": null, "c": "3"}, "clusterDNS": ["10.0.0.2"], "maxPods": null}),
            )
            .0,
        );
        assert_eq!(base, values(json!({"evictionHard": {"b": "2", "c": "3"}, "clusterDNS": ["10.0.0.2"]})));
    }

    #[test]
    fn zero_stays_only_where_upstream_can_tell_it_from_unset() {
        let mut set =
            values(json!({"port": 0, "syncFrequency": "0s", "healthzPort": 0, "enableServer": false}));
        set.fill_defaults(false);
        assert_eq!(set.int("port"), 10250);
        assert_eq!(set.text("syncFrequency"), Some("1m0s"));
        assert_eq!(set.int("healthzPort"), 0);
        assert!(!set.bool("enableServer"));
    }

    #[test]
    fn default_thresholds_are_merged_only_where_that_was_chosen() {
        let filled = |json| {
            let mut set = values(json);
            set.fill_defaults(false);
            set.texts("evictionHard")
        };
        let own = json!({"memory.available": "1Gi"});
        assert_eq!(filled(json!({"evictionHard": own})).len(), 1);
        assert_eq!(filled(json!({"evictionHard": {}})).len(), 0, "none is a choice, too");
        let merged = filled(json!({"evictionHard": own, "mergeDefaultEvictionSettings": true}));
        assert_eq!((merged.len(), merged["memory.available"].as_str()), (5, "1Gi"));
        assert_eq!(filled(json!({}))["memory.available"], "100Mi");
    }

    #[test]
    fn some_defaults_follow_other_fields() {
        let mut set = values(json!({"nodeStatusUpdateFrequency": "20s", "maxParallelImagePulls": 4}));
        set.fill_defaults(false);
        assert_eq!(set.text("nodeStatusReportFrequency"), Some("20s"));
        assert!(!set.bool("serializeImagePulls"));

        let mut alone = Values::default();
        alone.fill_defaults(true);
        assert!(!alone.bool("authentication.webhook.enabled"));
        assert!(!alone.bool("authentication.anonymous.enabled"));
        assert_eq!(alone.text("authorization.mode"), Some("AlwaysAllow"));
    }
}
