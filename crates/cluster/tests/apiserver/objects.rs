use std::sync::Arc;
use std::time::Duration;

use coracle_cluster::KubeObjectReader;
use coracle_core::ports::{ApiError, ObjectKey, ObjectKind, ObjectReader};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

use crate::bed::{Bed, PATIENCE, eventually};

fn reader(bed: &Bed) -> KubeObjectReader {
    KubeObjectReader::new(Arc::clone(&bed.client), bed.node_watch())
}

fn volumes(volumes: Value) -> Value {
    json!({"volumes": volumes})
}

fn config_map_volume(name: &str) -> Value {
    volumes(json!([{"name": "v", "configMap": {"name": name}}]))
}

async fn notice(changes: &mut broadcast::Receiver<ObjectKey>) -> ObjectKey {
    timeout(PATIENCE, changes.recv()).await.expect("no notice").unwrap()
}

async fn set_data(bed: &Bed, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"data": {"key": value}}));
    bed.api::<ConfigMap>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

fn value(config_map: &ConfigMap) -> &str {
    &config_map.data.as_ref().unwrap()["key"]
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_registered_pods_are_followed() {
    let bed = Bed::new("objects").await;
    let reader = reader(&bed);
    let mut changes = reader.changes();
    bed.create::<ConfigMap>(json!({"metadata": {"name": "config"}, "data": {"key": "one"}})).await;
    bed.create::<Secret>(json!({"metadata": {"name": "secret"}, "stringData": {"key": "s"}})).await;
    let spec = volumes(json!([
        {"name": "a", "configMap": {"name": "config"}},
        {"name": "b", "secret": {"secretName": "secret"}},
        {"name": "c", "configMap": {"name": "later"}},
    ]));
    let pod = bed.pod("p", spec).await;
    reader.register_pod(&pod);

    assert_eq!(value(&reader.config_map(&bed.name, "config").await.unwrap()), "one");
    let secret = reader.secret(&bed.name, "secret").await.unwrap();
    assert_eq!(secret.data.as_ref().unwrap()["key"].0, b"s");
    let later = reader.config_map(&bed.name, "later").await;
    assert!(matches!(later, Err(ApiError::NotFound(_))), "{later:?}");
    // Every pod has this one through its token volume.
    reader.config_map(&bed.name, "kube-root-ca.crt").await.unwrap();

    let key = |name: &str| ObjectKey {
        kind: ObjectKind::ConfigMap,
        namespace: bed.name.clone(),
        name: name.to_owned(),
    };
    set_data(&bed, "config", "two").await;
    assert_eq!(notice(&mut changes).await, key("config"));
    assert_eq!(value(&reader.config_map(&bed.name, "config").await.unwrap()), "two");

    bed.create::<ConfigMap>(json!({"metadata": {"name": "later"}, "data": {"key": "here"}})).await;
    assert_eq!(notice(&mut changes).await, key("later"));
    assert_eq!(value(&reader.config_map(&bed.name, "later").await.unwrap()), "here");

    bed.api::<ConfigMap>().delete("later", &DeleteParams::default()).await.unwrap();
    assert_eq!(notice(&mut changes).await, key("later"));
    let gone = reader.config_map(&bed.name, "later").await;
    assert!(matches!(gone, Err(ApiError::NotFound(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_object_is_read_once_and_forgotten_with_its_pod() {
    let bed = Bed::new("immutable").await;
    let reader = reader(&bed);
    let frozen =
        |value: &str| json!({"metadata": {"name": "frozen"}, "immutable": true, "data": {"key": value}});
    bed.create::<ConfigMap>(frozen("one")).await;
    let pod = bed.pod("p", config_map_volume("frozen")).await;
    reader.register_pod(&pod);
    assert_eq!(value(&reader.config_map(&bed.name, "frozen").await.unwrap()), "one");

    bed.api::<ConfigMap>().delete("frozen", &DeleteParams::default()).await.unwrap();
    bed.create::<ConfigMap>(frozen("two")).await;
    assert_eq!(value(&reader.config_map(&bed.name, "frozen").await.unwrap()), "one");

    reader.unregister_pod(&pod);
    reader.register_pod(&pod);
    assert_eq!(value(&reader.config_map(&bed.name, "frozen").await.unwrap()), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_pod_refers_to_is_refused() {
    let bed = Bed::new("refused").await;
    bed.create::<Secret>(json!({"metadata": {"name": "others"}})).await;
    let secret = reader(&bed).secret(&bed.name, "others").await;
    assert!(matches!(secret, Err(ApiError::Forbidden(_))), "{secret:?}");
}

/// Watches of ConfigMaps by name, as the server counts them: other clients watch all of them at once.
async fn config_map_watches(bed: &Bed) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = bed.admin.request_text(request).await.unwrap();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("apiserver_longrunning_requests{")
            && line.contains("resource=\"configmaps\"")
            && line.contains("verb=\"WATCH\"")
            && line.contains("scope=\"resource\"")
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_that_share_an_object_cost_one_watch() {
    const PODS: usize = 50;
    let bed = Bed::new("shared").await;
    let reader = reader(&bed);
    bed.create::<ConfigMap>(json!({"metadata": {"name": "shared"}, "data": {"key": "one"}})).await;
    let pod = bed.pod("p", config_map_volume("shared")).await;
    let pods: Vec<Pod> = (0..PODS)
        .map(|n| {
            let mut pod = pod.clone();
            pod.metadata.uid = Some(format!("uid-{n}"));
            pod
        })
        .collect();
    let mut changes = reader.changes();
    for pod in &pods {
        reader.register_pod(pod);
    }
    assert_eq!(value(&reader.config_map(&bed.name, "shared").await.unwrap()), "one");
    // One for `shared` and one for `kube-root-ca.crt`. Other tests have theirs, so only an excess by far counts.
    eventually("the watches", async || (config_map_watches(&bed).await >= 2.0).then_some(())).await;
    assert!(config_map_watches(&bed).await < PODS as f64 / 2.0);

    // After the last pod the object is still followed for the next one.
    pods.iter().for_each(|pod| reader.unregister_pod(pod));
    set_data(&bed, "shared", "two").await;
    assert_eq!(notice(&mut changes).await.name, "shared");
    assert_eq!(value(&reader.config_map(&bed.name, "shared").await.unwrap()), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_read_waits_for_one_round_trip() {
    const OBJECTS: usize = 20;
    let bed = Bed::new("first-read").await;
    let reader = reader(&bed);
    let mut times = Vec::new();
    for n in 0..OBJECTS {
        let name = format!("config-{n}");
        bed.create::<ConfigMap>(json!({"metadata": {"name": name}, "data": {"key": "v"}})).await;
        let pod = bed.pod(&format!("p{n}"), config_map_volume(&name)).await;
        let start = Instant::now();
        reader.register_pod(&pod);
        reader.config_map(&bed.name, &name).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "a first read, the authorizer's race included: p50 {:?}, max {:?}",
        times[OBJECTS / 2],
        times[OBJECTS - 1]
    );
    assert!(times[OBJECTS / 2] < Duration::from_millis(50), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_classes_are_known() {
    let bed = Bed::new("classes").await;
    let reader = reader(&bed);
    let absent = reader.runtime_class(&bed.name).await;
    assert!(matches!(absent, Err(ApiError::NotFound(_))), "{absent:?}");

    let class = json!({"metadata": {"name": bed.name}, "handler": "wasm"});
    let classes = Api::<RuntimeClass>::all(bed.admin.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let class = reader.runtime_class(&bed.name).await.unwrap();
    assert_eq!((class.name_any(), class.handler.as_str()), (bed.name.clone(), "wasm"));

    classes.delete(&bed.name, &DeleteParams::default()).await.unwrap();
    eventually("the class is forgotten", async || reader.runtime_class(&bed.name).await.err()).await;
}
