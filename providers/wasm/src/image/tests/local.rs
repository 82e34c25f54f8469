//! Files of this machine in place of images.

use std::fs;

use super::super::*;
use super::bed::{Bed, component, module};

#[tokio::test]
async fn on_a_node_they_are_refused() {
    let bed = Bed::new();
    for file in ["./hello.wasm", "/etc/passwd"] {
        for error in [
            bed.refused(file).await,
            bed.store.status(&ImageSpec::new(file)).await.unwrap_err(),
            bed.artifact(file).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::InvalidImageName);
            assert!(error.message.contains("local files work only in `coracle run`"), "{error}");
        }
    }
}

#[tokio::test]
async fn where_they_are_allowed_they_are_read_anew_when_they_change() {
    let bed = Bed::with(Default::default(), |options| options.allow_local_files = true);
    let path = bed.dir.path().join("hello.wasm");
    let name = path.to_str().unwrap();
    let is_present = || async { bed.store.status(&ImageSpec::new(name)).await.unwrap().is_some() };
    fs::write(&path, module()).unwrap();
    assert!(!is_present().await);
    let first = bed.pull(name).await.unwrap();
    assert_eq!(bed.binary(name), module());
    assert_eq!(first.repo_tags, [name.to_owned()]);
    assert!(first.repo_digests.is_empty());
    assert!(is_present().await);
    assert_eq!(bed.pull(name).await.unwrap(), first, "the same content is the same image");

    fs::write(&path, component()).unwrap();
    assert!(!is_present().await);
    let second = bed.pull(name).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(bed.binary(name), component());
    assert_eq!(bed.artifact(&first.id).unwrap().wasm.kind, WasmKind::Module);

    fs::remove_file(&path).unwrap();
    assert!(!is_present().await);
    let error = bed.pull(name).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert!(error.message.contains("can't be read: No such file or directory"), "{error}");
}

#[tokio::test]
async fn a_relative_one_is_relative_to_the_working_directory() {
    let bed = Bed::with(Default::default(), |options| options.allow_local_files = true);
    // Of this test's process: the folder of the crate.
    let error = bed.refused("./Cargo.toml").await;
    assert!(error.message.contains("neither a WebAssembly module nor a component"), "{error}");
}

#[tokio::test]
async fn what_is_no_wasm_file_is_refused() {
    let bed = Bed::with(Default::default(), |options| {
        options.allow_local_files = true;
        options.max_layer_bytes = 1000;
    });
    let long = bed.dir.path().join("long.wasm");
    fs::write(&long, vec![0; 1001]).unwrap();
    let native = bed.dir.path().join("native.cwasm");
    fs::write(&native, b"\x7fELF").unwrap();
    let pipe = bed.dir.path().join("pipe.wasm");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    for (path, reason) in [
        (long.as_path(), "has a binary of 1001 bytes; at most 1000 are allowed"),
        (native.as_path(), "native code"),
        (pipe.as_path(), "it is no file"),
        (bed.dir.path(), "it is no file"),
    ] {
        let error = bed.refused(path.to_str().unwrap()).await;
        assert!(error.message.contains(reason), "{error}");
    }
}
