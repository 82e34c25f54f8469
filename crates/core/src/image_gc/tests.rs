//! Upstream's tables (`image_gc_manager_test.go`).

use coracle_provider::fake::{Call, FakeProvider};
use coracle_provider::{ArtifactKind, ContainerStatus, Error, FsUsage, Image, RevisionCounter, Snapshot};
use tokio::time::advance;

use super::*;
use crate::clock;
use crate::fakes::{FakeSink, container_status};
use crate::providers::RegisteredProvider;

const P: &str = "p";
const POLICY: ImageGcPolicy = ImageGcPolicy {
    high_threshold_percent: 90,
    low_threshold_percent: 80,
    min_age: Duration::ZERO,
    max_age: Duration::ZERO,
};
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    provider: Arc<FakeProvider>,
    sink: Arc<FakeSink>,
    manager: ImageGcManager,
    revisions: RevisionCounter,
}

fn image(id: u32, size: u64) -> Image {
    Image {
        id: format!("image-{id}"),
        repo_tags: vec![format!("image-{id}-name")],
        repo_digests: vec![format!("image-{id}@digest")],
        size_bytes: size,
        kind: ArtifactKind::Wasm,
        uid: None,
        username: String::new(),
        annotations: Default::default(),
        pinned: false,
    }
}

impl World {
    fn new(policy: ImageGcPolicy, images: &[Image]) -> Self {
        let provider = FakeProvider::new(P, clock::now);
        images.iter().cloned().for_each(|image| provider.put_image(image));
        let registered =
            RegisteredProvider { provider: provider.clone(), handlers: Vec::new(), relist_period: MINUTE };
        let sink = Arc::new(FakeSink::default());
        let cache = Arc::new(PodCache::default());
        cache.replace_all(P, Snapshot::default());
        let manager = ImageGcManager::new(
            Providers::new(vec![registered]),
            cache,
            Recorder::new(sink.clone()),
            ObjectReference::default(),
            policy,
        );
        Self { provider, sink, manager, revisions: RevisionCounter::new(1) }
    }

    /// From now on there is a container of each of these images, and no other.
    fn set_containers(&self, images: &[u32]) {
        let revision = self.revisions.next();
        let containers = images.iter().map(|id| {
            let image_id = format!("image-{id}@digest");
            Arc::new(ContainerStatus { image_id, revision, ..container_status("pod", &format!("c{id}"), 0) })
        });
        let snapshot = Snapshot { containers: containers.collect(), revision, ..Snapshot::default() };
        self.manager.cache.replace_all(P, snapshot);
    }

    fn set_disk(&self, available_bytes: u64, capacity_bytes: u64) {
        self.provider.set_image_fs(FsUsage { available_bytes, capacity_bytes, ..FsUsage::default() });
    }

    async fn detect(&self) -> Vec<EvictionInfo> {
        self.manager.images_in_eviction_order(&*self.provider, Instant::now()).await.unwrap()
    }

    async fn free_space(&self, to_free: u64) -> u64 {
        let images = self.detect().await;
        self.manager.free_space(&*self.provider, images, to_free, Instant::now()).await.unwrap()
    }

    async fn free_old(&self) -> usize {
        let images = self.detect().await;
        let left = self.manager.free_old_images(&*self.provider, images, Instant::now()).await.unwrap();
        left.len()
    }

    async fn collect(&self) -> Result<(), ImageGcError> {
        self.manager.garbage_collect(&*self.provider).await
    }

    fn record(&self, id: &str) -> Option<records::ImageRecord> {
        self.manager.records.lock().get(P)?.get(id)
    }

    async fn images(&self) -> Vec<String> {
        use coracle_provider::ImageService;
        self.provider.set_error(Call::ListImages, None);
        let mut ids: Vec<_> =
            self.provider.list_images().await.unwrap().into_iter().map(|image| image.id).collect();
        ids.sort();
        ids
    }
}

#[tokio::test(start_paused = true)]
async fn images_are_remembered_while_they_are_present() {
    let world = World::new(POLICY, &[image(0, 1024), image(1, 2048)]);
    let start = Instant::now();
    world.set_containers(&[1]);
    world.detect().await;
    let unused = world.record("image-0").unwrap();
    assert_eq!((unused.first_detected, unused.last_used, unused.size), (start, None, 1024));
    assert_eq!(world.record("image-1").unwrap().last_used, Some(start));

    advance(MINUTE).await;
    world.provider.put_image(image(2, 1024));
    world.detect().await;
    assert_eq!(world.record("image-0").unwrap().first_detected, start);
    assert_eq!(world.record("image-2").unwrap().first_detected, start + MINUTE);

    world.set_containers(&[]);
    advance(MINUTE).await;
    world.detect().await;
    assert_eq!(world.record("image-1").unwrap().last_used, Some(start + MINUTE));

    world.free_space(u64::MAX).await;
    assert_eq!(world.manager.records.lock()[P].len(), 0);
}

#[tokio::test(start_paused = true)]
async fn space_is_freed_from_what_nobody_uses() {
    let pinned = |id, size| Image { pinned: true, ..image(id, size) };
    /// Images, those in use, bytes wanted, bytes freed, what stays.
    type Case<'a> = (&'a str, Vec<Image>, &'a [u32], u64, u64, &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        ("pinned images stay", vec![pinned(1, 1024), image(2, 1024)], &[], 4096, 1024, &["image-1"]),
        ("all are unused", vec![image(1, 1024), image(2, 1024)], &[], 2048, 2048, &[]),
        ("all are pinned", vec![pinned(1, 1024), pinned(2, 1024)], &[], 2048, 0, &["image-1", "image-2"]),
        ("those in use stay", vec![image(0, 1024), image(1, 2048)], &[1], 2048, 1024, &["image-1"]),
        ("no more than is wanted", vec![image(0, 1024), image(1, 2048)], &[], 1, 1024, &["image-1"]),
    ];
    for (name, images, used, wanted, freed, left) in cases {
        let world = World::new(POLICY, &images);
        world.set_containers(used);
        assert_eq!(world.free_space(wanted).await, freed, "{name}");
        assert_eq!(world.images().await, left, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_used_longest_ago_goes_first() {
    let world = World::new(POLICY, &[image(0, 1024), image(1, 2048)]);
    for used in [&[0, 1][..], &[1], &[]] {
        world.set_containers(used);
        world.detect().await;
        advance(MINUTE).await;
    }
    assert_eq!(world.free_space(1024).await, 1024);
    assert_eq!(world.images().await, ["image-1"]);
}

#[tokio::test(start_paused = true)]
async fn of_those_that_were_used_at_the_same_time_the_older_one_goes_first() {
    let world = World::new(POLICY, &[image(0, 1024)]);
    world.detect().await;
    advance(MINUTE).await;
    world.provider.put_image(image(1, 2048));
    world.set_containers(&[0, 1]);
    world.detect().await;
    advance(MINUTE).await;
    world.set_containers(&[]);
    assert_eq!(world.free_space(1024).await, 1024);
    assert_eq!(world.images().await, ["image-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_young_image_stays_however_full_the_disk_is() {
    let world = World::new(ImageGcPolicy { min_age: MINUTE, ..POLICY }, &[image(0, 1024), image(1, 2048)]);
    world.set_containers(&[1]);
    assert_eq!(world.free_space(1024).await, 0);
    advance(MINUTE).await;
    assert_eq!(world.free_space(1024).await, 1024);
    assert_eq!(world.images().await, ["image-1"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_nobody_has_used_for_long_goes_however_empty_the_disk_is() {
    let world = World::new(ImageGcPolicy { max_age: MINUTE, ..POLICY }, &[image(0, 1024), image(1, 2048)]);
    world.set_containers(&[1]);
    assert_eq!(world.free_old().await, 1);
    advance(MINUTE).await;
    world.provider.put_image(image(2, 1));
    assert_eq!(world.free_old().await, 2, "neither is older than the limit");
    advance(Duration::from_millis(1)).await;
    assert_eq!(world.free_old().await, 1);
    assert_eq!(world.images().await, ["image-1", "image-2"]);

    let never = World::new(POLICY, &[image(0, 1024)]);
    never.detect().await;
    advance(Duration::from_secs(1 << 30)).await;
    assert_eq!(never.free_old().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_emptied_from_the_high_to_the_low_threshold() {
    // Free and all bytes, sizes of images, and how many stay.
    let cases = [
        ("below the thresholds", 600, 1000, vec![100], 1),
        ("between them", 150, 1000, vec![100], 1),
        ("at the high one", 100, 1000, vec![60, 60, 60], 1),
        ("above it", 50, 1000, vec![450], 0),
        ("more is free than there is", 2000, 1000, vec![100], 1),
    ];
    for (name, available, capacity, sizes, left) in cases {
        let images: Vec<_> = sizes.iter().zip(0..).map(|(size, id)| image(id, *size)).collect();
        let world = World::new(POLICY, &images);
        world.set_disk(available, capacity);
        world.collect().await.unwrap();
        assert_eq!(world.images().await.len(), left, "{name}");
        assert!(world.sink.told().is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_freed_is_told() {
    let world = World::new(POLICY, &[image(0, 500 << 20)]);
    world.set_disk((10 << 30) / 20, 10 << 30);
    world.collect().await.unwrap_err();
    let expected = "FreeDiskSpaceFailed: Insufficient free disk space on the node's image filesystem (95% of 10.0 GiB \
                    used). Failed to free sufficient space by deleting unused images (freed 524288000 bytes). \
                    Investigate disk usage, as it could be used by active images, logs, volumes, or other data.";
    assert_eq!(world.sink.told(), [expected]);

    let world = World::new(POLICY, &[]);
    world.collect().await.unwrap_err();
    assert_eq!(world.sink.told(), ["InvalidDiskCapacity: invalid capacity 0 on image filesystem"]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_provider_end_a_round() {
    for call in [Call::ListImages, Call::ImageFsInfo, Call::RemoveImage] {
        let world = World::new(POLICY, &[image(0, 1000)]);
        world.set_disk(0, 1000);
        world.provider.set_error(call, Some(Error::internal("it is broken")));
        let error = world.collect().await.unwrap_err().to_string();
        assert!(error.ends_with("it is broken"), "{error}");
        assert_eq!(world.images().await, ["image-0"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_failure_in_a_row_makes_an_event() {
    let world = World::new(POLICY, &[image(0, 1000)]);
    world.set_disk(500, 1000);
    world.provider.set_error(Call::ListImages, Some(Error::internal("it is broken")));
    let _ = tokio::time::timeout(IMAGE_GC_PERIOD / 2, world.manager.run()).await;
    assert!(world.sink.told().is_empty());
    let _ = tokio::time::timeout(IMAGE_GC_PERIOD * 3 / 2, world.manager.run()).await;
    assert_eq!(world.sink.told(), ["ImageGCFailed: it is broken"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_before_it_is_known_what_is_in_use() {
    let world = World::new(POLICY, &[image(0, 1000)]);
    world.set_disk(0, 1000);
    let manager = ImageGcManager { cache: Arc::default(), ..world.manager };
    manager.garbage_collect(&*world.provider).await.unwrap();
    assert_eq!(world.provider.calls(Call::RemoveImage), 0);
}

#[tokio::test]
async fn what_an_image_was_pulled_with_is_forgotten_with_it() {
    use crate::pull_manager::VerificationPolicy;
    let root = tempfile::tempdir().unwrap();
    let pulls = PullManager::open(root.path(), VerificationPolicy::default()).unwrap();
    let records = || std::fs::read_dir(root.path().join("image_manager/pulled")).unwrap().count();
    let mut world = World::new(POLICY, &[image(0, 1024)]);
    world.manager = world.manager.with_pull_manager(Some(pulls.clone()));
    for id in ["image-0", "image-1"] {
        pulls.record_pull_intent(id).await.unwrap();
        pulls.record_image_pulled(id, id, None).await;
    }
    let later = clock::now() + jiff::SignedDuration::from_secs(1);
    world.provider.set_error(Call::ListImages, Some(Error::internal("no list")));
    world.manager.prune_pull_records(later).await;
    assert_eq!(records(), 2, "nobody knows what is there");
    world.provider.set_error(Call::ListImages, None);
    world.manager.prune_pull_records(later).await;
    assert_eq!(records(), 1);
}
