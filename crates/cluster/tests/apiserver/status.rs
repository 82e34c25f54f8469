use std::sync::Arc;
use std::time::Duration;

use coracle_cluster::KubeStatusSink;
use coracle_core::ports::{ApiError, StatusSink, StatusUpdate};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::Instant;

use crate::bed::Bed;

fn update(pod: &Pod, uid: &str) -> StatusUpdate {
    StatusUpdate {
        pod: Arc::new(pod.clone()),
        status: Arc::new(PodStatus::default()),
        patch: json!({
            "metadata": {"uid": uid},
            "status": {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]},
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_to_the_pod_that_is_meant() {
    let bed = Bed::new("status").await;
    let sink = KubeStatusSink::new(Arc::clone(&bed.client));
    let pod = bed.pod("p", json!({})).await;

    sink.patch_status(&update(&pod, &pod.uid().unwrap())).await.unwrap();
    let status = bed.api::<Pod>().get("p").await.unwrap().status.unwrap();
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.1.2.3")));

    let other = sink.patch_status(&update(&pod, "00000000-0000-0000-0000-000000000000")).await;
    assert!(matches!(other, Err(ApiError::Conflict(_))), "{other:?}");

    let mut absent = pod.clone();
    absent.metadata.name = Some("absent".to_owned());
    let absent = sink.patch_status(&update(&absent, &pod.uid().unwrap())).await;
    assert!(matches!(absent, Err(ApiError::NotFound(_))), "{absent:?}");

    let mut invalid = update(&pod, &pod.uid().unwrap());
    invalid.patch["status"]["phase"] = json!({"not": "a phase"});
    let invalid = sink.patch_status(&invalid).await;
    assert!(matches!(invalid, Err(ApiError::Invalid(_))), "{invalid:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_deleted_by_uid_and_once_is_enough() {
    let bed = Bed::new("delete").await;
    let sink = KubeStatusSink::new(Arc::clone(&bed.client));
    let pod = bed.pod("p", json!({})).await;

    let mut recreated = pod.clone();
    recreated.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    let other = sink.delete_pod(&recreated).await;
    assert!(matches!(other, Err(ApiError::Conflict(_))), "{other:?}");
    assert_eq!(bed.api::<Pod>().get("p").await.unwrap().uid(), pod.uid());

    sink.delete_pod(&pod).await.unwrap();
    assert!(bed.api::<Pod>().get_opt("p").await.unwrap().is_none());
    let again = sink.delete_pod(&pod).await;
    assert!(matches!(again, Err(ApiError::NotFound(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_fast() {
    const PATCHES: usize = 30;
    let bed = Bed::new("patch").await;
    let sink = KubeStatusSink::new(Arc::clone(&bed.client));
    let pod = bed.pod("p", json!({})).await;
    let mut times = Vec::new();
    for n in 0..PATCHES {
        let mut update = update(&pod, &pod.uid().unwrap());
        update.patch["status"]["message"] = json!(n.to_string());
        let start = Instant::now();
        sink.patch_status(&update).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("a status PATCH: p50 {:?}, max {:?}", times[PATCHES / 2], times[PATCHES - 1]);
    assert!(times[PATCHES / 2] < Duration::from_millis(50), "{times:?}");
}
