//! Static pods and their mirrors.

use std::path::Path;
use std::sync::Arc;

use coracle_core::config::{ManifestOrigin, decode_static_pod};
use coracle_core::pod::PodExt;
use coracle_provider::fake::Call;
use coracle_provider::{ContainerState, Error};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Duration;
use super::world::{World, one};

/// What a manifest with this name and image makes.
fn static_pod(name: &str, image: &str) -> Arc<Pod> {
    let manifest =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": one("Always", image)});
    let origin = ManifestOrigin::File(Path::new("/manifests/pod.yaml"));
    decode_static_pod(manifest.to_string().as_bytes(), origin, "node").unwrap().pod
}

fn register(world: &World) {
    let metadata =
        ObjectMeta { name: Some("node".into()), uid: Some("node-uid".into()), ..ObjectMeta::default() };
    *world.api.node.lock() = Some(Arc::new(Node { metadata, ..Node::default() }));
}

fn running(world: &World, uid: &str) -> usize {
    let is_running = |pod: &str, state| pod == uid && state == ContainerState::Running;
    world.fast.containers().iter().filter(|c| is_running(&c.pod.uid, c.state)).count()
}

fn mirror(world: &World) -> Option<Arc<Pod>> {
    world.api.get_by_name("web-node")
}

fn mirror_uid(world: &World) -> String {
    mirror(world).map(|pod| pod.uid().to_string()).unwrap_or_default()
}

fn mirror_phase(world: &World) -> String {
    mirror(world).map(|pod| pod.phase().to_owned()).unwrap_or_default()
}

/// A world with a static pod that runs and has its mirror.
async fn with_web() -> (World, Arc<Pod>) {
    let world = World::start().await;
    register(&world);
    let web = static_pod("web", "app");
    world.files.set(Some(vec![web.clone()]));
    world.until("the mirror is Running", |w| mirror_phase(w) == "Running").await;
    (world, web)
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_needs_no_apiserver_and_is_mirrored_once_there_is_one() {
    let world = World::start().await;
    let web = static_pod("web", "app");
    world.files.set(Some(vec![web.clone()]));
    world.until("it runs", |w| running(w, &web.uid()) == 1).await;
    sleep(Duration::from_secs(300)).await;
    assert!(mirror(&world).is_none());
    assert!(world.api.patches.lock().is_empty());
    register(&world);
    world.until("the mirror is Running", |w| mirror_phase(w) == "Running").await;

    let mirror = mirror(&world).unwrap();
    assert_ne!(mirror.uid(), web.uid());
    assert_eq!(mirror.annotation("kubernetes.io/config.mirror"), Some(&*web.uid()));
    assert_eq!(mirror.annotation("kubernetes.io/config.source"), Some("file"));
    assert_eq!(mirror.metadata.owner_references.as_ref().unwrap()[0].uid, "node-uid");
    assert_eq!(world.condition(&mirror.uid(), "Ready"), "True");
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.patches(&mirror.uid()), ["Running"], "nothing changed, so nothing is written");
    assert_eq!((*world.api.mirrors_created.lock(), world.fast.calls(Call::StartContainer)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_mirror_comes_back_and_the_pod_does_not_notice() {
    let (world, web) = with_web().await;
    let first = mirror_uid(&world);
    world.delete(&first, 30);
    world.until("another one", |w| mirror_phase(w) == "Running" && mirror_uid(w) != first).await;
    let second = mirror_uid(&world);
    world.force_delete(&second);
    world.until("a third one", |w| mirror_phase(w) == "Running" && mirror_uid(w) != second).await;
    assert_eq!((running(&world, &web.uid()), world.fast.calls(Call::StartContainer)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_manifest_replaces_the_pod_and_its_mirror() {
    let (world, old) = with_web().await;
    let new = static_pod("web", "app:2");
    let changed = Instant::now();
    world.files.set(Some(vec![new.clone()]));
    world
        .until("the new one runs", |w| {
            assert!(running(w, &old.uid()) + running(w, &new.uid()) <= 1, "both run");
            running(w, &new.uid()) == 1
        })
        .await;
    assert!(changed.elapsed() < Duration::from_secs(1), "took {:?}", changed.elapsed());
    let is_mirrored = |w: &World| {
        let mirror = mirror(w);
        mirror.as_ref().and_then(|m| m.annotation("kubernetes.io/config.mirror")) == Some(&*new.uid())
    };
    world.until("its mirror is Running", |w| is_mirrored(w) && mirror_phase(w) == "Running").await;
    assert_eq!(*world.api.mirrors_created.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removed_manifest_takes_the_mirror_along_once_the_pod_has_ended() {
    let (world, web) = with_web().await;
    world.fast.set_stubborn(true);
    world.files.set(Some(Vec::new()));
    world
        .until("gone", |w| {
            assert!(mirror(w).is_some() || running(w, &web.uid()) == 0, "the mirror went first");
            mirror(w).is_none()
        })
        .await;
    world.until("nothing is left", |w| w.fast.containers().is_empty() && w.fast.sandboxes().is_empty()).await;
    assert_eq!(*world.api.mirrors_created.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_never_runs_and_goes_when_all_sources_have_spoken() {
    let mut world = World::start().await;
    register(&world);
    world.kill_agent();
    world.files.set(None);
    world.create("left", one("Always", "app"));
    let mut left = (*world.api.get("left").unwrap()).clone();
    left.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "hash".to_owned())].into());
    world.api.put(left);
    world.start_agent();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.phase("left"), "Pending", "a file may still want it");
    world.files.set(Some(Vec::new()));
    world.until("gone", |w| w.phase("left") == "gone").await;
    assert_eq!(world.fast.calls(Call::RunSandbox), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_finds_its_static_pods() {
    let (mut world, web) = with_web().await;
    let uid = mirror_uid(&world);
    let patches = world.patches(&uid).len();
    world.kill_agent();
    world.files.set(None);
    world.start_agent();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(running(&world, &web.uid()), 1, "nothing is cleaned up before the files have been read");
    world.files.set(Some(vec![web.clone()]));
    sleep(Duration::from_secs(300)).await;
    assert_eq!((running(&world, &web.uid()), world.fast.calls(Call::StartContainer)), (1, 1));
    assert_eq!((mirror_uid(&world), *world.api.mirrors_created.lock()), (uid.clone(), 1));
    assert_eq!(world.patches(&uid).len(), patches);
    world.fast.exit(&web.uid(), "main", 1);
    world.until("its status goes on", |w| w.restarts(&uid) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_sources_with_the_same_name_one_waits_for_the_other() {
    let (world, file) = with_web().await;
    let url = static_pod("web", "app:2");
    world.urls.set(Some(vec![url.clone()]));
    sleep(Duration::from_secs(120)).await;
    assert_eq!((running(&world, &file.uid()), running(&world, &url.uid())), (1, 0));
    world.files.set(Some(Vec::new()));
    world
        .until("the other one runs", |w| {
            assert!(running(w, &file.uid()) + running(w, &url.uid()) <= 1, "both run");
            running(w, &url.uid()) == 1
        })
        .await;
    world.until("the mirror is Running", |w| mirror_phase(w) == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_of_a_fixed_uid_is_restarted_in_its_place() {
    let world = World::start().await;
    register(&world);
    let fixed = |image: &str| {
        let mut pod = static_pod("web", image);
        let metadata = &mut Arc::make_mut(&mut pod).metadata;
        metadata.uid = Some("fixed".into());
        metadata.annotations.as_mut().unwrap().insert("kubernetes.io/config.hash".into(), "fixed".into());
        pod
    };
    world.files.set(Some(vec![fixed("app")]));
    world.until("it runs", |w| running(w, "fixed") == 1).await;
    world.files.set(Some(Vec::new()));
    sleep(Duration::from_millis(1)).await;
    world.files.set(Some(vec![fixed("app")]));
    world.until("it ended", |w| running(w, "fixed") == 0).await;
    world.until("it runs again", |w| running(w, "fixed") == 1).await;
    world.files.set(Some(vec![fixed("app:2")]));
    let image = |w: &World| w.fast.containers().iter().any(|c| c.image.image.contains("app:2"));
    world.until("its container is replaced", |w| image(w) && running(w, "fixed") == 1).await;
}

/// A world with a static pod that has ended well.
async fn with_done() -> (World, Arc<Pod>) {
    let world = World::start().await;
    register(&world);
    let mut done = static_pod("web", "app");
    Arc::make_mut(&mut done).spec.as_mut().unwrap().restart_policy = Some("Never".into());
    world.files.set(Some(vec![done.clone()]));
    world.until("it runs", |w| mirror_phase(w) == "Running").await;
    world.fast.exit(&done.uid(), "main", 0);
    world.until("the mirror is Succeeded", |w| mirror_phase(w) == "Succeeded").await;
    (world, done)
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_that_has_ended_has_a_mirror_that_says_how() {
    let (mut world, _) = with_done().await;
    let first = mirror_uid(&world);
    world.kill_agent();
    world.force_delete(&first);
    world.start_agent();
    world.until("another one", |w| mirror_phase(w) == "Succeeded").await;
    assert_eq!(world.fast.calls(Call::StartContainer), 1);
}

#[tokio::test(start_paused = true)]
async fn the_mirror_of_a_static_pod_that_has_ended_never_says_otherwise() {
    let (mut world, _) = with_done().await;
    let uid = mirror_uid(&world);
    world.kill_agent();
    // Its new agent learns nothing of it but what the mirror says.
    world.fast.set_error(Call::List, Some(Error::internal("down")));
    world.start_agent();
    sleep(Duration::from_secs(30)).await;
    world.files.set(Some(Vec::new()));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.patches(&uid).last().unwrap(), "Succeeded");
    assert_eq!(mirror_phase(&world), "Succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_that_is_refused_has_a_mirror_that_says_why() {
    let world = World::start().await;
    let node = json!({"metadata": {"name": "node", "uid": "node-uid"},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "5"}}});
    *world.api.node.lock() = Some(Arc::new(serde_json::from_value(node).unwrap()));
    let mut web = static_pod("web", "app");
    let spec = Arc::make_mut(&mut web).spec.as_mut().unwrap();
    spec.containers[0].resources = serde_json::from_value(json!({"requests": {"cpu": "2"}})).unwrap();
    world.files.set(Some(vec![web]));
    world.until("the mirror is Failed", |w| mirror_phase(w) == "Failed").await;
    let message = mirror(&world).and_then(|mirror| mirror.status.as_ref()?.message.clone());
    assert!(message.unwrap().starts_with("Pod was rejected: "));
    assert_eq!(world.fast.calls(Call::RunSandbox), 0);
}
