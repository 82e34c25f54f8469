//! Network configurations: `*.conflist`, and `*.conf` with one plugin (section 1 of the CNI specification).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What file names end with (libcni: `ConfFiles`).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// Versions whose results are understood: those that list a pod's addresses under `ips`.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A list of plugins that make a network together.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct NetworkList {
    #[serde(rename = "cniVersion")]
    pub(super) version: String,
    pub(super) name: String,
    /// The configuration of each plugin; `type` names its program.
    pub(super) plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// The first configuration of a folder by name, as container runtimes choose it.
    pub(super) fn load(folder: &Path) -> Result<Self, String> {
        let files = files(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        let missing = || {
            format!(
                "there is no network configuration in {}: is a network plugin installed?",
                folder.display()
            )
        };
        let first = files.first().ok_or_else(missing)?;
        let wrong = |reason: String| format!("the network configuration {}: {reason}", first.display());
        let text = fs::read(first).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut value: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| format!("is no JSON object: {error}"))?;
        if !value.contains_key("plugins") {
            // A single plugin's file is a list of one.
            let list = [("cniVersion", value.get("cniVersion")), ("name", value.get("name"))];
            let list: Map<_, _> =
                list.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.clone()))).collect();
            value = Map::from_iter([("plugins".to_owned(), Value::from(vec![Value::Object(value)]))]);
            value.extend(list);
        }
        let list: Self = serde_json::from_value(value.into()).map_err(|error| error.to_string())?;
        if !VERSIONS.contains(&list.version.as_str()) {
            return Err(format!("has cniVersion {:?}; {} are understood", list.version, VERSIONS.join(", ")));
        }
        if list.name.is_empty() || list.plugins.is_empty() {
            return Err("has no name or no plugins".to_owned());
        }
        for plugin in &list.plugins {
            program(plugin)?;
        }
        Ok(list)
    }
}

/// The name of a plugin's program.
pub(super) fn program(plugin: &Map<String, Value>) -> Result<&str, String> {
    match plugin.get("type").and_then(Value::as_str) {
        Some(name) if !name.is_empty() && name != "." && name != ".." && !name.contains('/') => Ok(name),
        Some(name) => Err(format!("has a plugin of the type {name:?}, which is no file name")),
        None => Err("has a plugin without a type".to_owned()),
    }
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| EXTENSIONS.contains(&e))
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_file_by_name_counts() {
        let folder = tempfile::tempdir().unwrap();
        let none = NetworkList::load(folder.path()).unwrap_err();
        assert!(none.contains("is a network plugin installed?"), "{none}");
        let write = |name: &str, content: Value| {
            fs::write(folder.path().join(name), content.to_string()).unwrap();
        };
        write("20.conflist", json!({"cniVersion": "1.0.0", "name": "b", "plugins": [{"type": "bridge"}]}));
        write("10.conf", json!({"cniVersion": "0.4.0", "name": "a", "type": "ptp", "ipMasq": true}));
        write("00.txt", json!("no configuration"));
        let list = NetworkList::load(folder.path()).unwrap();
        assert_eq!((list.name.as_str(), list.version.as_str()), ("a", "0.4.0"));
        assert_eq!(program(&list.plugins[0]), Ok("ptp"));
        assert_eq!(list.plugins[0]["ipMasq"], true);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let plugin = json!([{ "type": "bridge" }]);
        for (wrong, said) in [
            (json!([]), "JSON object"),
            (json!({"cniVersion": "1.0.0", "plugins": plugin}), "name"),
            (json!({"cniVersion": "0.2.0", "name": "a", "plugins": plugin}), "0.2.0"),
            (json!({"cniVersion": "1.0.0", "name": "", "plugins": plugin}), "no name"),
            (json!({"cniVersion": "1.0.0", "name": "a", "plugins": []}), "no plugins"),
            (json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "../sh"}]}), "../sh"),
            (json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{}]}), "without a type"),
        ] {
            let error = NetworkList::parse(wrong.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
