use std::sync::Arc;

use coracle_cluster::{EventOptions, event_sink};
use coracle_core::ports::{EventRecord, EventSink, EventType};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::bed::{Bed, eventually};

fn event(pod: &Pod, message: &str) -> EventRecord {
    EventRecord {
        object: pod.object_ref(&()),
        event_type: EventType::Warning,
        reason: "BackOff".into(),
        message: message.to_owned(),
    }
}

async fn written(bed: &Bed, count: i32) -> Event {
    eventually("the event", async || {
        let events = bed.api::<Event>().list(&ListParams::default()).await.unwrap();
        events.into_iter().find(|event| event.count == Some(count))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_written_and_counted() {
    let bed = Bed::new("events").await;
    let (sink, writer) = event_sink(Arc::clone(&bed.client), &bed.name, EventOptions::default());
    let writer = tokio::spawn(writer.run());
    let pod = bed.pod("p", json!({})).await;

    sink.record(event(&pod, "Back-off restarting failed container"));
    let first = written(&bed, 1).await;
    assert_eq!(first.involved_object.uid, pod.uid());
    let source = first.source.clone().unwrap();
    assert_eq!((source.component.as_deref(), source.host), (Some("kubelet"), Some(bed.name.clone())));
    assert_eq!((first.type_.as_deref(), first.reason.as_deref()), (Some("Warning"), Some("BackOff")));

    sink.record(event(&pod, "Back-off restarting failed container"));
    let second = written(&bed, 2).await;
    assert_eq!(second.uid(), first.uid());

    // Events end their lives before the objects that they are about.
    bed.api::<Event>().delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    sink.record(event(&pod, "Back-off restarting failed container"));
    assert_ne!(written(&bed, 3).await.uid(), first.uid());

    assert_eq!(sink.dropped(), 0);
    drop(sink);
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_nodes_are_in_the_default_namespace() {
    let bed = Bed::new("node-events").await;
    let (sink, writer) = event_sink(Arc::clone(&bed.client), &bed.name, EventOptions::default());
    let mut node = event(&Pod::default(), "Starting");
    node.object.kind = Some("Node".to_owned());
    node.object.name = Some(bed.name.clone());
    sink.record(node);
    drop(sink);
    writer.run().await;
    let of_node = ListParams::default().fields(&format!("involvedObject.name={}", bed.name));
    let events = Api::<Event>::namespaced(bed.admin.clone(), "default").list(&of_node).await.unwrap();
    assert_eq!(events.items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_dropped_and_counted() {
    let bed = Bed::new("flood").await;
    let (sink, _writer) = event_sink(Arc::clone(&bed.client), &bed.name, EventOptions::default());
    for _ in 0..1100 {
        sink.record(event(&Pod::default(), "flood"));
    }
    assert_eq!(sink.dropped(), 100);
}
