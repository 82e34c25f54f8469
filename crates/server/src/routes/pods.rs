//! `/pods`: the pods bound to this node.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::App;

/// A `v1.PodList` (`getPods`).
pub(super) async fn get_pods(State(app): State<Arc<App>>) -> Response {
    pod_list(app.host.pods())
}

/// A list of pods (`encodePods`). It is written pod by pod: a list of thousands of pods is never in memory as a whole.
pub(super) fn pod_list(pods: Vec<Arc<Pod>>) -> Response {
    // As Go writes a list without items.
    let (begin, end) = if pods.is_empty() { ("null", "}\n") } else { ("[", "]}\n") };
    let begin = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":{begin}"#);
    let items = pods.into_iter().enumerate().map(|(index, pod)| encode_pod(&pod, index == 0));
    let chunks =
        [Ok(Bytes::from(begin))].into_iter().chain(items).chain([Ok(Bytes::from_static(end.as_bytes()))]);
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(chunks))).into_response()
}

/// A pod as an item of a list: without `kind` and `apiVersion`, which the list says for all.
#[derive(Serialize)]
struct Item<'a> {
    metadata: &'a ObjectMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a PodSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a PodStatus>,
}

fn encode_pod(pod: &Pod, is_first: bool) -> io::Result<Bytes> {
    let mut encoded = if is_first { vec![] } else { vec![b','] };
    let item = Item { metadata: &pod.metadata, spec: pod.spec.as_ref(), status: pod.status.as_ref() };
    serde_json::to_writer(&mut encoded, &item)?;
    Ok(encoded.into())
}
