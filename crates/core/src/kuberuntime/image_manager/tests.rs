//! Upstream's cases (`image_manager_test.go`), on a provider in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_provider::fake::{Call, FakeProvider};
use coracle_provider::{Error, ImageService};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, Node, PodSpec, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tempfile::TempDir;
use tokio::sync::broadcast;

use super::*;
use crate::fakes::FakeSink;
use crate::ports::{ApiError, ObjectKey};
use crate::pull_manager::VerificationPolicy;

const IMAGE: &str = "example.com/team/app:v1";

/// Pull secrets by name, all of the namespace `ns`.
#[derive(Default)]
struct Secrets(Mutex<BTreeMap<String, Arc<Secret>>>);

#[async_trait]
impl ObjectReader for Secrets {
    async fn config_map(&self, _namespace: &str, _name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(ApiError::NotFound("none here".into()))
    }
    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        self.0.lock().get(name).cloned().ok_or_else(|| ApiError::NotFound(name.to_owned()))
    }
    async fn runtime_class(&self, _name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Err(ApiError::NotFound("none here".into()))
    }
    async fn services(&self, _namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        Ok(Vec::new())
    }
    fn node(&self) -> Option<Arc<Node>> {
        None
    }
    fn register_pod(&self, _pod: &Pod) {}
    fn unregister_pod(&self, _pod: &Pod) {}
    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        broadcast::channel(1).1
    }
}

struct Bed {
    root: TempDir,
    secrets: Arc<Secrets>,
    sink: Arc<FakeSink>,
    fake: Arc<FakeProvider>,
    manager: ImageManager,
}

impl Bed {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adjust: impl FnOnce(&mut ImageManagerOptions)) -> Self {
        let root = TempDir::new().unwrap();
        let mut options = ImageManagerOptions::default();
        let pulls = PullManager::open(root.path(), VerificationPolicy::default()).unwrap();
        options.pull_manager = Some(pulls);
        adjust(&mut options);
        let (secrets, sink) = (Arc::new(Secrets::default()), Arc::new(FakeSink::default()));
        let manager = ImageManager::new(Recorder::new(sink.clone()), secrets.clone(), options);
        Self { root, secrets, sink, fake: FakeProvider::new("fake", crate::clock::now), manager }
    }

    /// Makes a pull secret for the registry.
    fn secret(&self, name: &str, password: &str) {
        let json = format!(r#"{{"auths":{{"example.com":{{"username":"u","password":"{password}"}}}}}}"#);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("ns".to_owned()),
                uid: Some(format!("uid-{name}")),
                ..ObjectMeta::default()
            },
            data: Some([(".dockerconfigjson".to_owned(), ByteString(json.into_bytes()))].into()),
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            ..Secret::default()
        };
        self.secrets.0.lock().insert(name.to_owned(), Arc::new(secret));
    }

    async fn ensure(&self, pod: &Pod) -> Result<String, SyncFailure> {
        let provider: Arc<dyn Provider> = self.fake.clone();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        self.manager.ensure_image_exists(&provider, "", pod, container).await
    }

    fn refuse(&self) {
        let error = Error::new(ErrorKind::Unauthorized, "image needs credentials");
        self.fake.set_error(Call::PullImage, Some(error));
    }

    fn pulls(&self) -> usize {
        self.fake.calls(Call::PullImage)
    }

    /// The Events since the last time.
    fn told(&self) -> Vec<String> {
        let told = self.sink.told();
        self.sink.events.lock().clear();
        told
    }
}

fn pod(uid: &str, policy: &str, secrets: &[&str]) -> Pod {
    let reference = |name: &&str| LocalObjectReference { name: (*name).to_owned() };
    let container = Container {
        name: "c".to_owned(),
        image: Some(IMAGE.to_owned()),
        image_pull_policy: Some(policy.to_owned()),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some("pod".to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            image_pull_secrets: Some(secrets.iter().map(reference).collect()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

#[tokio::test]
async fn a_missing_image_is_pulled_and_a_present_one_is_not() {
    let bed = Bed::new();
    let id = bed.ensure(&pod("a", "IfNotPresent", &[])).await.unwrap();
    let [pulling, pulled] = &bed.told()[..] else { panic!("two events") };
    assert_eq!(pulling, &format!("Pulling: Pulling image {IMAGE:?}"));
    let start = format!("Pulled: Successfully pulled image {IMAGE:?} in ");
    assert!(pulled.starts_with(&start) && pulled.contains("including waiting). Image size: "), "{pulled}");
    // Pulled without credentials, so it is for all.
    assert_eq!(bed.ensure(&pod("b", "IfNotPresent", &[])).await.unwrap(), id);
    let already = format!(
        "Pulled: Container image {IMAGE:?} already present on machine and can be accessed by the pod"
    );
    assert_eq!(bed.told(), [already]);
    assert_eq!(bed.pulls(), 1);
    bed.ensure(&pod("b", "Always", &[])).await.unwrap();
    assert_eq!(bed.pulls(), 2);
}

#[tokio::test]
async fn an_image_that_must_not_be_pulled_has_to_be_there() {
    let bed = Bed::new();
    let failure = bed.ensure(&pod("a", "Never", &[])).await.unwrap_err();
    assert_eq!(failure.reason, "ErrImageNeverPull");
    let provider: &dyn ImageService = &*bed.fake;
    let request = coracle_provider::PullRequest {
        image: ImageSpec::new(IMAGE),
        ..coracle_provider::PullRequest::default()
    };
    provider.pull_image(request, None).await.unwrap();
    bed.ensure(&pod("a", "Never", &[])).await.unwrap();
}

#[tokio::test]
async fn an_image_pulled_with_a_secret_is_not_given_to_a_pod_without_it() {
    let bed = Bed::new();
    bed.secret("own", "right");
    bed.secret("other", "wrong");
    let owner = pod("a", "IfNotPresent", &["own"]);
    let id = bed.ensure(&owner).await.unwrap();
    bed.refuse();
    for stranger in [pod("b", "IfNotPresent", &[]), pod("c", "IfNotPresent", &["other"])] {
        let failure = bed.ensure(&stranger).await.unwrap_err();
        assert_eq!(failure.reason, "ErrImagePull");
    }
    assert_eq!(bed.pulls(), 3);
    // Nor may it learn that the image is there.
    let failure = bed.ensure(&pod("d", "Never", &["other"])).await.unwrap_err();
    assert_eq!(failure.reason, "ErrImageNeverPull");
    assert_eq!(
        failure.message,
        format!("Container image {IMAGE:?} is not present with pull policy of Never")
    );
    // Its owner, and whoever has the same password, need not ask the registry.
    bed.secret("copy", "right");
    for friend in [owner, pod("e", "Never", &["own"]), pod("f", "IfNotPresent", &["other", "copy"])] {
        assert_eq!(bed.ensure(&friend).await.unwrap(), id);
    }
    assert_eq!(bed.pulls(), 3);
}

#[tokio::test]
async fn who_can_pull_an_image_anew_gets_it() {
    let bed = Bed::new();
    bed.secret("own", "right");
    bed.secret("second", "right too");
    bed.ensure(&pod("a", "IfNotPresent", &["own"])).await.unwrap();
    for _ in 0..2 {
        bed.ensure(&pod("b", "IfNotPresent", &["second"])).await.unwrap();
    }
    assert_eq!(bed.pulls(), 2, "the second time it is known");
}

#[tokio::test]
async fn what_the_last_process_pulled_when_it_ended_is_for_those_who_can_pull_it() {
    let bed = Bed::new();
    let provider: Arc<dyn Provider> = bed.fake.clone();
    bed.fake.set_delay(Call::PullImage, Duration::from_millis(100));
    let before = pod("a", "IfNotPresent", &[]);
    let container = before.spec.as_ref().unwrap().containers[0].clone();
    let pull = bed.manager.ensure_image_exists(&provider, "", &before, &container);
    assert!(tokio::time::timeout(Duration::from_millis(50), pull).await.is_err());
    // The records of a process that was killed: the image comes, and nobody records it.
    let next = Bed::with(|options| {
        let pulls = PullManager::open(bed.root.path(), VerificationPolicy::default()).unwrap();
        options.pull_manager = Some(pulls);
    });
    next.fake
        .pull_image(
            coracle_provider::PullRequest { image: ImageSpec::new(IMAGE), ..Default::default() },
            None,
        )
        .await
        .unwrap();
    next.refuse();
    let failure = next.ensure(&pod("b", "IfNotPresent", &[])).await.unwrap_err();
    assert_eq!(failure.reason, "ErrImagePull");
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_is_recorded_all_the_same() {
    let bed = Bed::new();
    bed.secret("own", "right");
    bed.fake.set_delay(Call::PullImage, Duration::from_millis(50));
    let owner = pod("a", "IfNotPresent", &["own"]);
    assert!(tokio::time::timeout(Duration::from_millis(10), bed.ensure(&owner)).await.is_err());
    for _ in 0..100 {
        if bed.fake.image_status(&ImageSpec::new(IMAGE)).await.unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    bed.refuse();
    bed.ensure(&owner).await.unwrap();
    assert_eq!(bed.ensure(&pod("b", "IfNotPresent", &[])).await.unwrap_err().reason, "ErrImagePull");
}

#[tokio::test(start_paused = true)]
async fn pulls_wait_for_their_turn() {
    let bed = Bed::with(|options| {
        options.pull_manager = None;
        options.rate = Some((2.0, 2));
        options.max_parallel_pulls = Some(1);
    });
    bed.fake.set_delay(Call::PullImage, Duration::from_millis(100));
    let since = Instant::now();
    let pods: Vec<Pod> = (0..4).map(|number| pod(&number.to_string(), "Always", &[])).collect();
    futures::future::join_all(pods.iter().map(|pod| bed.ensure(pod))).await;
    // Two at once, but one after the other; then one every half second, the first of them since the start.
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(1100) && took < Duration::from_millis(1400), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn many_that_want_the_same_wait_for_one_pull() {
    for parallel in [Some(1), None] {
        let bed = Bed::with(|options| {
            options.pull_manager = None;
            options.rate = Some((1.0, 1));
            options.max_parallel_pulls = parallel;
        });
        bed.fake.set_delay(Call::PullImage, Duration::from_millis(500));
        let since = Instant::now();
        let pods: Vec<Pod> = (0..50).map(|number| pod(&number.to_string(), "IfNotPresent", &[])).collect();
        let ids = futures::future::join_all(pods.iter().map(|pod| bed.ensure(pod))).await;
        assert!(ids.iter().all(Result::is_ok));
        assert_eq!(bed.pulls(), 1);
        assert!(since.elapsed() < Duration::from_millis(700), "{:?}", since.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_pull_backs_off_and_says_why() {
    let bed = Bed::new();
    bed.refuse();
    let failing = pod("a", "IfNotPresent", &["missing"]);
    assert_eq!(bed.ensure(&failing).await.unwrap_err().reason, "ErrImagePull");
    let told = bed.told();
    assert!(told.iter().any(|event| event.starts_with("FailedToRetrieveImagePullSecret: ")), "{told:?}");
    assert!(told.contains(&format!("Failed: Failed to pull image {IMAGE:?}: image needs credentials")));
    assert_eq!(told.last().unwrap(), "Failed: Error: ErrImagePull");
    let failure = bed.ensure(&failing).await.unwrap_err();
    assert_eq!(failure.reason, "ImagePullBackOff");
    assert!(failure.message.ends_with("ErrImagePull: image needs credentials"), "{}", failure.message);
    assert_eq!(bed.pulls(), 1);
}
