//! What nodes asked of the apiserver, from its audit log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One line for each request of a node, when it is answered; that of a watch when it ends.
pub(crate) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    userGroups: [system:nodes]
";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is done: `get`, `list`, `watch`, `create`, `patch`, `delete`, …
    pub verb: String,
    /// To what: `pods/status`, `serviceaccounts/token`, …
    pub resource: String,
    /// In which namespace; empty for none.
    pub namespace: String,
    /// The name of the object; empty for many, or for one that is new.
    pub name: String,
    /// The HTTP status that it was answered with.
    pub code: u64,
}

/// How many calls there are of each kind: `patch pods/status`, …
pub fn tally(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in calls {
        *counted.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
    }
    counted
}

/// The requests of a user, in their order.
pub(crate) fn calls(log: &Path, user: &str) -> Result<Vec<Call>> {
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let entries = text.lines().map(serde_json::from_str::<Value>);
    let mut calls = Vec::new();
    for entry in entries {
        let entry = entry.context("the audit log")?;
        if entry["user"]["username"] == user {
            calls.push(call(&entry));
        }
    }
    Ok(calls)
}

fn call(entry: &Value) -> Call {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &entry["objectRef"];
    let resource = match &object["subresource"] {
        Value::String(subresource) => format!("{}/{subresource}", text(&object["resource"])),
        _ => text(&object["resource"]),
    };
    Call {
        verb: text(&entry["verb"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
    }
}
