//! Upstream's tables (`image_pull_manager_test.go`), on files of their own.

use coracle_provider::RegistryAuth;
use tempfile::TempDir;

use super::*;
use crate::credential_provider::Coordinates;

const IMAGE: &str = "docker.io/testing/test:latest";
const ID: &str = "testimageref";

struct Bed {
    root: TempDir,
    manager: Arc<PullManager>,
}

impl Bed {
    fn new() -> Self {
        Self::with(VerificationPolicy::NeverVerifyPreloadedImages)
    }

    fn with(policy: VerificationPolicy) -> Self {
        let root = TempDir::new().unwrap();
        let manager = PullManager::open(root.path(), policy).unwrap();
        Self { root, manager }
    }

    /// The next process.
    fn reopen(&mut self) {
        self.manager = PullManager::open(self.root.path(), self.manager.policy.clone()).unwrap();
    }

    async fn pull(&self, image: &str, credentials: Option<&TrackedAuthConfig>) {
        self.manager.record_pull_intent(image).await.unwrap();
        self.manager.record_image_pulled(image, ID, credentials).await;
    }

    async fn must_pull(&self, image: &str, credentials: &[TrackedAuthConfig]) -> bool {
        let credentials = credentials.to_vec();
        self.manager.must_attempt_image_pull(image, ID, async move { credentials }).await
    }

    fn intents(&self) -> usize {
        std::fs::read_dir(self.root.path().join("image_manager/pulling")).unwrap().count()
    }

    fn secrets(&self) -> Vec<ImagePullSecret> {
        let memory = self.manager.memory.lock();
        memory.pulled[ID].credential_mapping[trim_image_tag_digest(IMAGE)].kubernetes_secrets.clone()
    }
}

fn coordinates(name: &str) -> Coordinates {
    Coordinates { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

fn tracked(source: CredentialSource, hash: &str) -> TrackedAuthConfig {
    TrackedAuthConfig { auth: RegistryAuth::default(), hash: hash.to_owned(), source }
}

fn secret(name: &str, hash: &str) -> TrackedAuthConfig {
    tracked(CredentialSource::Secret(coordinates(name)), hash)
}

fn account(name: &str) -> TrackedAuthConfig {
    tracked(CredentialSource::ServiceAccount(coordinates(name)), "irrelevant")
}

#[tokio::test]
async fn an_image_pulled_with_a_secret_is_for_those_who_have_it() {
    let mut bed = Bed::new();
    bed.pull(IMAGE, Some(&secret("a", "hash"))).await;
    for _ in 0..2 {
        for (credentials, must_pull) in [
            (vec![], true),
            (vec![secret("a", "hash")], false),
            // The same content from elsewhere, and the same secret with new content.
            (vec![secret("b", "hash")], false),
            (vec![secret("a", "new")], false),
            (vec![secret("c", "other")], true),
            (vec![secret("c", "other"), secret("a", "hash")], false),
            (vec![tracked(CredentialSource::Node, "hash")], true),
            (vec![account("a")], true),
        ] {
            assert_eq!(bed.must_pull(IMAGE, &credentials).await, must_pull, "{credentials:?}");
        }
        // The same repository with another tag leads to the same image; another repository does not.
        assert!(!bed.must_pull("docker.io/testing/test:v2", &[secret("a", "hash")]).await);
        assert!(bed.must_pull("docker.io/testing/other:v2", &[secret("a", "hash")]).await);
        bed.reopen();
    }
    assert_eq!(bed.intents(), 0);
}

#[tokio::test]
async fn what_fits_is_remembered_up_to_a_limit() {
    let bed = Bed::new();
    bed.pull(IMAGE, Some(&secret("first", "hash"))).await;
    for number in 0..WRITE_RECORD_WHILE_MATCHING_LIMIT + 10 {
        assert!(!bed.must_pull(IMAGE, &[secret(&format!("s{number:03}"), "hash")]).await);
    }
    assert_eq!(bed.secrets().len(), WRITE_RECORD_WHILE_MATCHING_LIMIT);
    // Without room, new content of a known secret has to be shown to the registry.
    assert!(bed.must_pull(IMAGE, &[secret("first", "new")]).await);
    assert!(!bed.must_pull(IMAGE, &[secret("first", "new"), secret("s001", "hash")]).await);
}

#[tokio::test]
async fn an_image_pulled_by_the_node_is_for_all_and_one_by_a_service_account_for_that() {
    for credentials in [None, Some(tracked(CredentialSource::Node, "hash"))] {
        let bed = Bed::new();
        bed.pull(IMAGE, Some(&secret("a", "hash"))).await;
        assert!(bed.must_pull(IMAGE, &[]).await);
        bed.pull(IMAGE, credentials.as_ref()).await;
        assert!(!bed.must_pull(IMAGE, &[]).await);
        // It stays so.
        bed.pull(IMAGE, Some(&secret("a", "hash"))).await;
        assert!(!bed.must_pull(IMAGE, &[]).await);
    }
    let bed = Bed::new();
    bed.pull(IMAGE, Some(&account("a"))).await;
    assert!(!bed.must_pull(IMAGE, &[account("a")]).await);
    assert!(bed.must_pull(IMAGE, &[account("b")]).await);
    bed.pull(IMAGE, Some(&account("b"))).await;
    assert!(!bed.must_pull(IMAGE, &[account("a")]).await);
    assert!(!bed.must_pull(IMAGE, &[account("b")]).await);
}

#[tokio::test]
async fn images_that_nobody_pulled_are_for_all_by_policy() {
    let allowlist = |pattern: &str| {
        VerificationPolicy::NeverVerifyAllowlistedImages(Allowlist::new(&[pattern.to_owned()]).unwrap())
    };
    for (policy, must_pull) in [
        (VerificationPolicy::NeverVerify, false),
        (VerificationPolicy::NeverVerifyPreloadedImages, false),
        (allowlist("docker.io/testing/*"), false),
        (allowlist("docker.io/other/*"), true),
        (VerificationPolicy::AlwaysVerify, true),
    ] {
        let bed = Bed::with(policy.clone());
        assert_eq!(bed.must_pull(IMAGE, &[secret("a", "hash")]).await, must_pull, "{policy:?}");
    }
}

#[tokio::test]
async fn while_an_image_is_pulled_its_presence_lets_nobody_in() {
    let bed = Bed::new();
    bed.manager.record_pull_intent(IMAGE).await.unwrap();
    bed.manager.record_pull_intent(IMAGE).await.unwrap();
    assert!(bed.must_pull(IMAGE, &[]).await);
    bed.manager.record_image_pull_failed(IMAGE).await;
    assert!(bed.must_pull(IMAGE, &[]).await);
    assert_eq!(bed.intents(), 1);
    bed.manager.record_image_pull_failed(IMAGE).await;
    assert!(!bed.must_pull(IMAGE, &[]).await);
    assert_eq!(bed.intents(), 0);
}

#[tokio::test]
async fn what_the_last_process_was_pulling_has_to_be_verified() {
    let mut bed = Bed::new();
    bed.manager.record_pull_intent(IMAGE).await.unwrap();
    bed.reopen();
    assert!(bed.must_pull(IMAGE, &[secret("a", "hash")]).await);
    assert_eq!(bed.manager.left_intents(), [IMAGE]);
    bed.manager.settle_left_intent(IMAGE, ID).await;
    assert!(bed.manager.left_intents().is_empty());
    assert_eq!(bed.intents(), 0);
    // By any name, and after yet another start.
    bed.reopen();
    for name in [IMAGE, "docker.io/testing/test@sha256:00"] {
        assert!(bed.must_pull(name, &[secret("a", "hash")]).await, "{name}");
    }
    bed.pull(IMAGE, Some(&secret("a", "hash"))).await;
    assert!(!bed.must_pull(IMAGE, &[secret("a", "hash")]).await);
}

#[tokio::test]
async fn a_record_that_does_not_parse_has_to_be_verified() {
    let mut bed = Bed::new();
    bed.pull(IMAGE, None).await;
    let folder = bed.root.path().join("image_manager/pulled");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(file, "{").unwrap();
    bed.reopen();
    assert!(bed.must_pull(IMAGE, &[]).await);
    bed.pull(IMAGE, None).await;
    assert!(!bed.must_pull(IMAGE, &[]).await);
}

#[tokio::test]
async fn images_that_are_gone_are_forgotten() {
    let mut bed = Bed::new();
    bed.pull(IMAGE, Some(&secret("a", "hash"))).await;
    let before = clock::now() - jiff::SignedDuration::from_secs(1);
    let after = clock::now() + jiff::SignedDuration::from_secs(1);
    bed.manager.prune_unknown_records(HashSet::new(), before).await;
    bed.manager.prune_unknown_records(HashSet::from([ID.to_owned()]), after).await;
    assert!(bed.must_pull(IMAGE, &[]).await, "it was recorded after, or is in use");
    bed.manager.prune_unknown_records(HashSet::new(), after).await;
    bed.reopen();
    assert!(!bed.must_pull(IMAGE, &[]).await);
}
