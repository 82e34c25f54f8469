use std::sync::Arc;
use std::time::Duration;

use coracle_cluster::ApiserverSource;
use coracle_core::ports::{PodSource, SourceKind, SourceUpdate};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::bed::{Bed, PATIENCE};

pub(crate) async fn next(updates: &mut mpsc::Receiver<SourceUpdate>) -> SourceUpdate {
    timeout(PATIENCE, updates.recv()).await.expect("no update").expect("the source ended")
}

pub(crate) fn start(bed: &Bed) -> (mpsc::Receiver<SourceUpdate>, tokio::task::JoinHandle<()>) {
    let (sender, updates) = mpsc::channel(16);
    let source = ApiserverSource::new(Arc::clone(&bed.client), bed.node_watch());
    assert_eq!(source.kind(), SourceKind::Api);
    (updates, tokio::spawn(async move { source.run(sender).await }))
}

fn applied(update: SourceUpdate) -> Arc<Pod> {
    let SourceUpdate::Apply(pod) = update else { panic!("not an Apply: {update:?}") };
    assert_eq!(pod.metadata.managed_fields, None);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_this_node_are_listed_and_followed() {
    let bed = Bed::new("pods").await;
    bed.pod("first", json!({})).await;
    let elsewhere = json!({"nodeName": "another-node"});
    bed.pod("elsewhere", elsewhere).await;

    let (mut updates, source) = start(&bed);
    let SourceUpdate::Set(pods) = next(&mut updates).await else { panic!("not a Set") };
    assert_eq!(pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["first"]);
    assert!(pods[0].metadata.managed_fields.is_none());

    let created = bed.pod("second", json!({})).await;
    assert_eq!(applied(next(&mut updates).await).uid(), created.uid());

    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    bed.api::<Pod>().patch("second", &PatchParams::default(), &label).await.unwrap();
    assert_eq!(applied(next(&mut updates).await).labels()["a"], "b");

    let now = DeleteParams::default().grace_period(0);
    bed.api::<Pod>().delete("second", &now).await.unwrap();
    let gone = loop {
        match next(&mut updates).await {
            // That it is about to go may be said first.
            SourceUpdate::Apply(pod) => assert!(pod.metadata.deletion_timestamp.is_some()),
            SourceUpdate::Delete(pod) => break pod,
            SourceUpdate::Set(_) => panic!("listed again"),
        }
    };
    assert_eq!(gone.uid(), created.uid());

    drop(updates);
    timeout(PATIENCE, source).await.expect("the source goes on without a receiver").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_seen_at_once() {
    const PODS: usize = 20;
    let bed = Bed::new("latency").await;
    let (mut updates, _source) = start(&bed);
    next(&mut updates).await;
    let mut latencies = Vec::new();
    for n in 0..PODS {
        bed.pod(&format!("p{n}"), json!({})).await;
        // The answer to the creator and the event for the watch leave the server at about the same time.
        let answered = Instant::now();
        applied(next(&mut updates).await);
        latencies.push(answered.elapsed());
    }
    latencies.sort();
    println!(
        "seen after the creator was answered: p50 {:?}, max {:?}",
        latencies[PODS / 2],
        latencies[PODS - 1]
    );
    assert!(latencies[PODS / 2] < Duration::from_millis(50), "{latencies:?}");
}
