//! Messages of Events about resizes (upstream: `pkg/kubelet/events/resize.go`).

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Serialize;

use super::checkpoint::Requirements;
use crate::go_format;
use crate::pod::PodExt;

/// What happened to the resize of a pod.
#[derive(Clone, Copy, Debug)]
pub enum ResizeMessage<'a> {
    /// It was allocated.
    Started,
    /// It is in effect everywhere.
    Completed,
    /// The runtime did not take it: why.
    Error(&'a str),
    /// It cannot be allocated: the condition's reason, and why.
    Pending(&'a str, &'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Allocation<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Allocation<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Allocation<'a> {
    name: &'a str,
    resources: Requirements,
}

impl ResizeMessage<'_> {
    /// The message, with the resources that the pod's spec says.
    pub fn format(self, pod: &Pod, generation: Option<i64>) -> String {
        let (prefix, error): (Cow<'_, str>, _) = match self {
            Self::Started => ("Pod resize started".into(), ""),
            Self::Completed => ("Pod resize completed".into(), ""),
            Self::Error(error) => ("Pod resize error".into(), error),
            Self::Pending(reason, error) => (format!("Pod resize {reason}").into(), error),
        };
        let summary = Summary {
            init_containers: allocations(pod.init_containers()),
            containers: allocations(pod.containers()),
            generation: generation.unwrap_or_default(),
            error,
        };
        match go_format::json(&summary) {
            Ok(json) => format!("{prefix}: {json}"),
            Err(_) => prefix.into_owned(),
        }
    }
}

fn allocations(containers: &[Container]) -> Vec<Allocation<'_>> {
    let resources = |c: &Container| c.resources.as_ref().map(Requirements::from).unwrap_or_default();
    containers.iter().map(|c| Allocation { name: &c.name, resources: resources(c) }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "0.5"}, "limits": {"cpu": "1"}}}]}}))
        .unwrap();
        let resources = r#""initContainers":[{"name":"i","resources":{}}],"containers":[{"name":"c","resources":{"limits":{"cpu":"1"},"requests":{"cpu":"500m"}}}],"generation":2"#;
        assert_eq!(
            ResizeMessage::Started.format(&pod, Some(2)),
            format!("Pod resize started: {{{resources}}}")
        );
        assert_eq!(
            ResizeMessage::Pending("Deferred", "no \"cpu\"").format(&pod, Some(2)),
            format!(r#"Pod resize Deferred: {{{resources},"error":"no \"cpu\""}}"#)
        );
    }
}
