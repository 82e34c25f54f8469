//! Pulls, repeated and at once; what is present, and what is gone again.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::super::*;
use super::bed::{
    Bed, Compiler, PREPARED_BYTES, Pieces, component, gzip, module, overwrite, request, tar, until,
};
use super::fake::{self, Fake};
use super::real::Registry;

async fn status(bed: &Bed, image: &str) -> Option<Image> {
    bed.store.status(&ImageSpec::new(image)).await.unwrap()
}

#[tokio::test]
async fn a_second_pull_asks_for_the_manifest_only() {
    let registry = Registry::start();
    let bed = Bed::new();
    for pieces in [
        Pieces::artifact(&module()),
        Pieces::container(gzip(&tar(&[("app.wasm", &component())])), &["/app.wasm"]),
    ] {
        let reference = registry.push("app:v1", &pieces).await;
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (sender, mut progress) = mpsc::channel(64);
            bed.store.pull(request(&reference, None), Some(sender)).await.unwrap();
            let mut messages = Vec::new();
            while let Some(message) = progress.recv().await {
                messages.push(message);
            }
            heard.push(messages);
        }
        let total_bytes = (pieces.config.1.len() + pieces.layers[0].1.len()) as u64;
        assert_eq!(heard[0].first(), Some(&PullProgress::Resolved { total_bytes }));
        assert!(heard[0].contains(&PullProgress::Fetched { bytes: total_bytes }), "{:?}", heard[0]);
        assert_eq!(heard[0].last(), Some(&PullProgress::Preparing));
        assert_eq!(heard[1], [PullProgress::Resolved { total_bytes: 0 }, PullProgress::Preparing]);
    }
}

#[tokio::test]
async fn every_name_of_an_image_leads_to_it() {
    let registry = Registry::start();
    let bed = Bed::new();
    let pieces = Pieces::artifact(&module());
    let reference = registry.push("app:latest", &pieces).await;
    let untagged = reference.strip_suffix(":latest").unwrap();
    let image = bed.pull(untagged).await.unwrap();
    let pinned = format!("{untagged}@{}", pieces.digest());
    assert_eq!(image.repo_tags, [reference.as_str()]);
    assert_eq!(image.repo_digests, [pinned.as_str()]);
    let tag_and_digest = format!("{untagged}:whatever@{}", pieces.digest());
    for name in [&reference, untagged, &pinned, &tag_and_digest, &image.id, pieces.digest().hex()] {
        assert_eq!(status(&bed, name).await.as_ref(), Some(&image), "{name}");
    }
    assert_eq!(status(&bed, &format!("{untagged}:other")).await, None);
    assert_eq!(bed.artifact("example.com/none").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(
        bed.store.status(&ImageSpec::new("Not A Name")).await.unwrap_err().kind,
        ErrorKind::InvalidImageName
    );

    let again = registry.push("other:v1", &pieces).await;
    let image = bed.pull(&again).await.unwrap();
    assert_eq!(image.repo_tags.len(), 2, "{image:?}");
    assert_eq!(bed.store.list(), [image]);
}

#[tokio::test]
async fn sizes_count_everything_and_removal_leaves_nothing() {
    let registry = Registry::start();
    let bed = Bed::new();
    let layer = gzip(&tar(&[("app.wasm", &module())]));
    let pieces = Pieces::container(layer.clone(), &["/app.wasm"]);
    let reference = registry.push("app:v1", &pieces).await;
    bed.pull(&reference).await.unwrap();
    let image = bed.pull(&reference).await.unwrap();
    let manifest = pieces.manifest().to_string().len();
    let files = (manifest + pieces.config.1.len() + layer.len() + module().len()) as u64;
    assert_eq!(image.size_bytes, files + PREPARED_BYTES);
    let usage = bed.store.fs_info().await.unwrap();
    assert_eq!((usage.used_bytes, usage.inodes_used), (image.size_bytes, 4));
    assert!(usage.available_bytes <= usage.capacity_bytes && usage.capacity_bytes > usage.used_bytes);
    assert_eq!(usage.mountpoint, bed.dir.path().join("images").to_str().unwrap());

    bed.store.remove(&ImageSpec::new(&image.id)).await.unwrap();
    bed.store.remove(&ImageSpec::new(&reference)).await.unwrap();
    assert_eq!(bed.files(), 0);
    assert!(bed.compiler.prepared.lock().is_empty());
    assert_eq!(status(&bed, &reference).await, None);
    assert_eq!(bed.store.fs_info().await.unwrap().used_bytes, 0);
}

#[tokio::test]
async fn what_was_prepared_stays_as_long_as_one_image_has_that_binary() {
    let registry = Registry::start();
    let bed = Bed::new();
    let container = Pieces::container(gzip(&tar(&[("app.wasm", &module())])), &["/app.wasm"]);
    let container = registry.push("container:v1", &container).await;
    let artifact = registry.push("artifact:v1", &Pieces::artifact(&module())).await;
    bed.pull(&container).await.unwrap();
    bed.pull(&artifact).await.unwrap();
    bed.store.remove(&ImageSpec::new(&container)).await.unwrap();
    assert_eq!(bed.compiler.prepared.lock().len(), 2, "once for each pull");
    bed.store.remove(&ImageSpec::new(&artifact)).await.unwrap();
    assert!(bed.compiler.prepared.lock().is_empty());
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_and_the_old_image_stays() {
    let registry = Registry::start();
    let bed = Bed::new();
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let old = bed.pull(&reference).await.unwrap();
    registry.push("app:v1", &Pieces::artifact(&component())).await;
    assert_eq!(status(&bed, &reference).await.unwrap().id, old.id);
    let new = bed.pull(&reference).await.unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(status(&bed, &reference).await.unwrap().id, new.id);
    let old = status(&bed, &old.id).await.unwrap();
    assert_eq!((old.repo_tags.len(), old.repo_digests.len()), (0, 1));
}

#[tokio::test]
async fn images_outlive_the_process() {
    let registry = Registry::start();
    let mut bed = Bed::new();
    let container = Pieces::container(gzip(&tar(&[("app.wasm", &module())])), &["/app.wasm"]);
    let container = registry.push("container:v1", &container).await;
    let artifact = registry.push("artifact:v1", &Pieces::artifact(&component())).await;
    bed.pull(&container).await.unwrap();
    bed.pull(&artifact).await.unwrap();
    let before = [status(&bed, &container).await, status(&bed, &artifact).await];

    let (options, compiler) = (Options::new(bed.dir.path()), bed.compiler.clone());
    let locked = ImageStore::open(options.clone(), compiler.clone()).err().unwrap();
    assert_eq!(locked.kind, ErrorKind::Unavailable, "{locked}");
    bed.store = {
        drop(std::mem::replace(&mut bed.store, Bed::new().store));
        ImageStore::open(options, compiler).unwrap()
    };
    assert_eq!([status(&bed, &container).await, status(&bed, &artifact).await], before);
    assert_eq!(bed.binary(&container), module());
    assert_eq!(bed.binary(&artifact), component());
}

#[tokio::test]
async fn pulls_at_the_same_time_are_one() {
    let registry = Registry::start();
    let compiler = Compiler { takes: Duration::from_millis(300), ..Compiler::default() };
    let bed = Bed::with(compiler, |_| {});
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let (sender, mut late) = mpsc::channel(8);
    let join = |progress| bed.store.pull(request(&reference, None), progress);
    let (first, second, third) = tokio::join!(join(None), join(None), async {
        until("it compiles", || bed.compiler.runs.load(Ordering::SeqCst) == 1).await;
        join(Some(sender)).await
    });
    assert_eq!(first.unwrap(), second.unwrap());
    third.unwrap();
    assert_eq!(bed.compiler.runs.load(Ordering::SeqCst), 1);
    assert!(matches!(late.recv().await, Some(PullProgress::Resolved { total_bytes }) if total_bytes > 0));
    // One that begins later is one of its own.
    bed.pull(&reference).await.unwrap();
    assert_eq!(bed.compiler.runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_pull_goes_on_without_those_who_wait() {
    let registry = Registry::start();
    let compiler = Compiler { takes: Duration::from_millis(200), ..Compiler::default() };
    let bed = Bed::with(compiler, |_| {});
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let waited = tokio::time::timeout(Duration::from_millis(50), bed.pull(&reference)).await;
    assert!(waited.is_err(), "it takes longer than that");
    let listed = || !bed.store.list().is_empty();
    until("the image is there", listed).await;
}

#[tokio::test]
async fn a_full_or_closed_progress_channel_holds_up_nothing() {
    let registry = Registry::start();
    let bed = Bed::new();
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    let (full, _kept) = mpsc::channel(1);
    full.try_send(PullProgress::Preparing).unwrap();
    bed.store.pull(request(&reference, None), Some(full)).await.unwrap();
    let (closed, receiver) = mpsc::channel(1);
    drop(receiver);
    bed.store.pull(request(&reference, None), Some(closed)).await.unwrap();
}

#[tokio::test]
async fn a_binary_that_does_not_compile_is_refused_with_the_reason() {
    let registry = Registry::start();
    let bed = Bed::new();
    let reference = registry.push("app:v1", &Pieces::artifact(&module())).await;
    *bed.compiler.fails.lock() = Some(Error::invalid("type mismatch at byte 42"));
    let error = bed.refused(&reference).await;
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert_eq!(error.message, format!("image {reference:?} can't be prepared: type mismatch at byte 42"));

    *bed.compiler.fails.lock() = Some(Error::new(ErrorKind::Unavailable, "the compiler can't be started"));
    assert_eq!(bed.refused(&reference).await.kind, ErrorKind::Unavailable);
    *bed.compiler.fails.lock() = None;
    bed.pull(&reference).await.unwrap();
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_said() {
    let registry = Registry::start();
    let bed = Bed::new();
    let pieces = Pieces::artifact(&module());
    let reference = registry.push("app:v1", &pieces).await;
    for missing in [registry.reference("app:v2"), registry.reference("none:v1")] {
        let error = bed.refused(&missing).await;
        assert_eq!(error.kind, ErrorKind::ImageUnusable);
        assert_eq!(error.message, format!("image {missing:?} was not found in its registry"));
    }
    std::fs::remove_file(registry.blob_file(&pieces.layers[0].1)).unwrap();
    let error = bed.refused(&reference).await;
    assert!(error.message.contains("that its registry does not have"), "{error}");
}

#[tokio::test]
async fn a_blob_that_was_damaged_in_the_registry_is_noticed() {
    let registry = Registry::start();
    let bed = Bed::new();
    let pieces = Pieces::artifact(&module());
    let reference = registry.push("app:v1", &pieces).await;
    let whole = pieces.layers[0].1.clone();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damaged in [changed, whole[..whole.len() - 1].to_vec(), [&whole[..], b"x"].concat()] {
        overwrite(&registry.blob_file(&whole), &damaged);
        let error = bed.refused(&reference).await;
        assert_eq!(error.kind, ErrorKind::ImageUnusable, "{error}");
        assert!(error.message.contains("does not match sha256:"), "{error}");
    }
    overwrite(&registry.blob_file(&whole), &whole);
    bed.pull(&reference).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_down_is_said_soon() {
    let bed = Bed::new();
    let host = {
        let gone = Fake::start(|_| fake::ok("")).await;
        gone.host.clone()
    };
    let started = Instant::now();
    let error = bed.refused(&format!("{host}/app:v1")).await;
    assert_eq!(error.kind, ErrorKind::RegistryUnavailable);
    assert!(error.message.contains("its registry can't be reached: Connection refused"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}
