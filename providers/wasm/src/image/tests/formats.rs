//! Every way to put Wasm into a registry, and those that are not taken.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::*;
use super::bed::{Bed, Pieces, component, gzip, module, platform, tar};
use super::real::Registry;

const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const ANY_CONFIG: &str = "application/vnd.wasm.config.v1+json";

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test]
async fn every_format_becomes_an_artifact() {
    let registry = Registry::start();
    let bed = Bed::new();
    let artifact = |config: &'static str, content: Vec<u8>, layer: &'static str, wasm: &[u8]| Pieces {
        config: (config, content),
        layers: vec![(layer, wasm.to_vec())],
        ..Pieces::artifact(wasm)
    };
    let container = |layer: Vec<u8>, media_type: &'static str| {
        let mut pieces = Pieces::container(layer, &["/bin/app.wasm"]);
        pieces.layers[0].0 = media_type;
        pieces
    };
    let layer = tar(&[("bin/app.wasm", &module()), ("etc/motd", b"hello")]);
    let mut docker = container(gzip(&layer), DOCKER_TAR);
    docker.media_type = Some(media_type::DOCKER_MANIFEST);
    docker.config.0 = media_type::DOCKER_CONFIG;
    let mut untyped = Pieces::artifact(&module());
    untyped.media_type = None;

    let krustlet = "application/vnd.wasm.content.layer.v1+wasm";
    let runwasi = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
    let wasmcloud = "application/vnd.module.wasm.content.layer.v1+wasm";
    let wasm_platform = || platform("wasip2", "wasm");
    for (name, pieces, is_component) in [
        ("cncf", Pieces::artifact(&component()), true),
        (
            "cncf-image-config",
            artifact(media_type::OCI_CONFIG, wasm_platform(), media_type::WASM_LAYER, &module()),
            false,
        ),
        ("no-media-type", untyped, false),
        ("krustlet", artifact(ANY_CONFIG, b"{}".to_vec(), krustlet, &module()), false),
        ("runwasi", artifact(media_type::OCI_CONFIG, wasm_platform(), runwasi, &component()), true),
        ("wasmcloud", artifact(ANY_CONFIG, b"[1]".to_vec(), wasmcloud, &component()), true),
        ("container", container(layer.clone(), OCI_TAR), false),
        ("container-gzip", container(gzip(&layer), "application/vnd.oci.image.layer.v1.tar+gzip"), false),
        ("container-zstd", container(zstd(&layer), "application/vnd.oci.image.layer.v1.tar+zstd"), false),
        ("container-mislabelled", container(zstd(&layer), OCI_TAR), false),
        ("docker", docker, false),
    ] {
        let reference = registry.push(&format!("{name}:v1"), &pieces).await;
        let image = bed.pull(&reference).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.id, pieces.digest().to_string(), "{name}");
        assert_eq!(image.kind, ArtifactKind::Wasm);

        let artifact = bed.artifact(&image.id).unwrap();
        let (kind, wasm) = match is_component {
            true => (WasmKind::Component, component()),
            false => (WasmKind::Module, module()),
        };
        assert_eq!(artifact.wasm.kind, kind, "{name}");
        assert_eq!(artifact.wasm.size, wasm.len() as u64, "{name}");
        assert_eq!(bed.binary(&reference), wasm, "{name}");
        assert!(bed.compiler.prepared.lock().contains(&artifact.wasm.digest), "{name}");
    }
}

#[tokio::test]
async fn the_configuration_of_a_container_image_comes_along() {
    let registry = Registry::start();
    let bed = Bed::new();
    // Relative to the working directory, over two layers, and in place of an older file.
    let mut pieces =
        Pieces::container(gzip(&tar(&[("srv/app.wasm", b"old"), ("x", b"y")])), &["app.wasm", "-v"]);
    pieces.layers.push((OCI_TAR, tar(&[("srv/app.wasm", &component())])));
    let reference = registry.push("app:v1", &pieces).await;
    let image = bed.pull(&reference).await.unwrap();
    assert_eq!((image.uid, image.username.as_str()), (Some(1000), ""));
    assert_eq!(bed.binary(&reference), component());
    let expected = ImageConfig {
        entrypoint: vec!["app.wasm".to_owned(), "-v".to_owned()],
        cmd: Vec::new(),
        env: vec![("FROM".to_owned(), "image".to_owned())],
        working_dir: "/srv".to_owned(),
        user: "1000:1000".to_owned(),
    };
    assert_eq!(bed.artifact(&reference).unwrap().config, expected);
}

#[tokio::test]
async fn a_command_names_another_program_of_a_container_image() {
    let registry = Registry::start();
    let mut bed = Bed::new();
    let layer = tar(&[("app.wasm", &module()), ("srv/other.wasm", &component()), ("text", b"hello")]);
    let reference = registry.push("app:v1", &Pieces::container(gzip(&layer), &["/app.wasm"])).await;
    let artifact = registry.push("artifact:v1", &Pieces::artifact(&module())).await;
    bed.pull(&reference).await.unwrap();
    bed.pull(&artifact).await.unwrap();
    let before = bed.files();
    for _ in 0..2 {
        for (image, command, working_dir, expected) in [
            (&reference, &[][..], "", module()),
            (&reference, &["/app.wasm", "-v"], "", module()),
            // Relative to the working directory, which the container may set.
            (&reference, &["other.wasm"], "", component()),
            (&reference, &["other.wasm", "again"], "/srv", component()),
            (&reference, &["./srv/other.wasm"], "/", component()),
            (&artifact, &["anything"], "", module()),
        ] {
            let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
            let program = bed.store.program(image, &command, &[], working_dir).await.unwrap();
            assert_eq!(std::fs::read(&program.wasm.path).unwrap(), expected, "{command:?}");
            assert!(bed.compiler.prepared.lock().contains(&program.wasm.digest));
        }
    }
    for (command, reason) in
        [("/none.wasm", "has no file \"/none.wasm\""), ("/text", "neither a WebAssembly module")]
    {
        let error = bed.store.program(&reference, &[command.to_owned()], &[], "").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ImageUnusable);
        assert!(error.message.contains(reason), "{error}");
    }
    assert_eq!(bed.files(), before + 1, "one more binary");
    assert_eq!(bed.store.fs_info().await.unwrap().inodes_used, bed.files() as u64);

    // It goes with its image, or with the process.
    let (options, compiler) = (Options::new(bed.dir.path()), bed.compiler.clone());
    bed.store = {
        drop(std::mem::replace(&mut bed.store, Bed::new().store));
        ImageStore::open(options, compiler).unwrap()
    };
    assert_eq!(bed.files(), before);
    let other = Digest::of(&component()).to_string();
    assert!(!bed.compiler.prepared.lock().contains(&other));
    bed.store.program(&reference, &["other.wasm".to_owned()], &[], "").await.unwrap();
    assert!(bed.compiler.prepared.lock().contains(&other));
    bed.store.remove(&ImageSpec::new(&reference)).await.unwrap();
    bed.store.remove(&ImageSpec::new(&artifact)).await.unwrap();
    assert_eq!(bed.files(), 0);
    assert!(bed.compiler.prepared.lock().is_empty());
}

#[tokio::test]
async fn an_index_is_resolved_by_platform() {
    let registry = Registry::start();
    let bed = Bed::new();
    let linux = Pieces {
        config: (media_type::OCI_CONFIG, platform("linux", "amd64")),
        ..Pieces::container(gzip(&tar(&[("app", b"\x7fELF")])), &["/app"])
    };
    let wasm = Pieces::container(gzip(&tar(&[("app.wasm", &module())])), &["/app.wasm"]);
    let reference =
        registry.push_index("app:v1", &[("linux", "amd64", &linux), ("wasi", "wasm", &wasm)]).await;
    let image = bed.pull(&reference).await.unwrap();
    assert_eq!(image.id, wasm.digest().to_string());
    assert_eq!(bed.binary(&reference), module());
    // Both the index and the chosen manifest lead here, and pin the image.
    assert_eq!(image.repo_digests.len(), 2, "{image:?}");
    assert_eq!(image.repo_tags, [reference.as_str()]);
    for name in &image.repo_digests {
        assert_eq!(bed.store.status(&ImageSpec::new(name)).await.unwrap().unwrap().id, image.id, "{name}");
        bed.pull(name).await.unwrap();
    }

    let bed = Bed::new();
    let only_linux = registry.push_index("linux:v1", &[("linux", "amd64", &linux)]).await;
    let error = bed.refused(&only_linux).await;
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert!(error.message.contains("has no Wasm variant: it offers linux/amd64"), "{error}");
    let error = bed.refused(&registry.push("plain:v1", &linux).await).await;
    assert!(error.message.contains("is for linux/amd64"), "{error}");
}

#[tokio::test]
async fn what_is_no_wasm_is_refused_in_every_wrapper() {
    let registry = Registry::start();
    let bed = Bed::new();
    let native = b"\x7fELF\x02\x01\x01 compiled ahead of time".to_vec();
    let truncated = module()[..module().len() - 3].to_vec();
    for (content, reason) in [
        (native, "native code"),
        (truncated, "damaged WebAssembly binary"),
        (b"#!/bin/sh\necho hello\n".to_vec(), "neither a WebAssembly module nor a component"),
        (b"(module)".to_vec(), "WebAssembly text"),
    ] {
        let artifact = Pieces::artifact(&content);
        let krustlet = Pieces {
            config: (ANY_CONFIG, b"{}".to_vec()),
            layers: vec![("application/vnd.wasm.content.layer.v1+wasm", content.clone())],
            ..artifact.clone()
        };
        let container = Pieces::container(gzip(&tar(&[("app.wasm", &content)])), &["/app.wasm"]);
        for (name, pieces) in
            [("artifact:v1", artifact), ("krustlet:v1", krustlet), ("container:v1", container)]
        {
            let error = bed.refused(&registry.push(name, &pieces).await).await;
            assert_eq!(error.kind, ErrorKind::ImageUnusable);
            assert!(error.message.contains(reason), "{name}: {error}");
        }
    }
    assert_eq!(bed.compiler.runs.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_entry_point_that_is_not_there_is_named() {
    let registry = Registry::start();
    let bed = Bed::new();
    let layer = gzip(&tar(&[("app.wasm", &module())]));
    for (entrypoint, reason) in [
        (vec!["/other.wasm"], "has no file \"/other.wasm\", which its entry point names"),
        (vec!["wasmtime", "/app.wasm"], "has no file \"/srv/wasmtime\""),
    ] {
        let pieces = Pieces::container(layer.clone(), &entrypoint);
        let error = bed.refused(&registry.push("app:v1", &pieces).await).await;
        assert!(error.message.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn without_an_entry_point_the_container_names_the_program() {
    let registry = Registry::start();
    let mut bed = Bed::new();
    let layer = gzip(&tar(&[("app.wasm", &module()), ("srv/other.wasm", &component())]));
    let pieces = Pieces::container(layer, &[]);
    let reference = registry.push("app:v1", &pieces).await;
    let image = bed.pull(&reference).await.unwrap();
    assert_eq!((image.id.as_str(), bed.compiler.runs.load(Ordering::SeqCst)), (pieces.digest().as_str(), 0));
    for _ in 0..2 {
        let error = bed.store.program(&reference, &[], &[], "").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ImageUnusable);
        assert!(error.message.contains("set `command` of the container"), "{error}");
        for (command, args, expected) in [
            (&["/app.wasm"][..], &[][..], module()),
            (&["other.wasm"], &["/app.wasm"], component()),
            // Arguments take the place of CMD, which is where a container's program is without ENTRYPOINT.
            (&[], &["/app.wasm", "-v"], module()),
        ] {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            let program = bed.store.program(&reference, &owned(command), &owned(args), "").await.unwrap();
            assert_eq!(std::fs::read(&program.wasm.path).unwrap(), expected, "{command:?} {args:?}");
        }
        bed.pull(&reference).await.unwrap();
        let (options, compiler) = (Options::new(bed.dir.path()), bed.compiler.clone());
        bed.store = {
            drop(std::mem::replace(&mut bed.store, Bed::new().store));
            ImageStore::open(options, compiler).unwrap()
        };
    }
    bed.store.remove(&ImageSpec::new(&reference)).await.unwrap();
    assert_eq!(bed.files(), 0);
}

#[tokio::test]
async fn sizes_have_limits() {
    let registry = Registry::start();
    let bed = Bed::with(Default::default(), |options| {
        options.max_layer_bytes = 10_000;
        options.max_image_bytes = 25_000;
    });
    let zeros = |bytes: usize| gzip(&tar(&[("zeros", &vec![0; bytes]), ("app.wasm", &module())]));
    let large = Pieces::artifact(&[module(), vec![0; 10_000]].concat());
    let mut many = Pieces::container(vec![1; 9_000], &["/app.wasm"]);
    many.layers.extend((2..4).map(|i| (OCI_TAR, vec![i; 9_000])));
    let inflated = Pieces::container(zeros(100_000), &["/app.wasm"]);
    let big_binary = Pieces::container(gzip(&tar(&[("app.wasm", &[0; 12_000])])), &["/app.wasm"]);
    for (pieces, reason) in [
        (large, "has a layer of 10"),
        (many, "has layers of 27000 bytes; at most 25000 are allowed"),
        (inflated, "unpacks to 25000 bytes or more"),
        (big_binary, "has a binary of 12000 bytes; at most 10000 are allowed"),
    ] {
        let error = bed.refused(&registry.push("large:v1", &pieces).await).await;
        assert_eq!(error.kind, ErrorKind::ImageUnusable);
        assert!(error.message.contains(reason), "{error}");
    }
    let fits = Pieces::container(zeros(2_000), &["/app.wasm"]);
    bed.pull(&registry.push("fits:v1", &fits).await).await.unwrap();
}

#[tokio::test]
async fn annotations_of_the_manifest_are_kept() {
    let registry = Registry::start();
    let bed = Bed::new();
    let pieces = Pieces::artifact(&module());
    registry.push("a:v1", &pieces).await;
    let mut manifest = pieces.manifest();
    manifest["annotations"] = json!({"org.opencontainers.image.title": "demo"});
    registry.push_manifest("a", "v2", media_type::OCI_MANIFEST, &manifest).await;
    let image = bed.pull(&registry.reference("a:v2")).await.unwrap();
    assert_eq!(image.annotations["org.opencontainers.image.title"], "demo");
}
