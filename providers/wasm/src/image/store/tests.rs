//! The store on disk: what it looks like, and that nothing brings it out of step.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::image::artifact::{WasmBlob, WasmKind};
use crate::image::media_type::{OCI_MANIFEST, WASM_CONFIG, WASM_LAYER};

/// Remembers what was forgotten.
#[derive(Default)]
struct Forgotten(Mutex<Vec<String>>);

#[async_trait]
impl Prepare for Forgotten {
    async fn prepare(&self, _wasm: &WasmBlob) -> coracle_provider::Result<()> {
        Ok(())
    }

    fn prepared_bytes(&self, _digest: &str) -> u64 {
        0
    }

    fn forget(&self, digest: &str) {
        self.0.lock().push(digest.to_owned());
    }

    fn retain(&self, _digests: &std::collections::HashSet<String>) {}
}

struct Bed {
    dir: TempDir,
    forgotten: Arc<Forgotten>,
}

impl Bed {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), forgotten: Arc::default() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn open(&self) -> Store {
        Store::open(self.root(), self.forgotten.clone()).unwrap()
    }

    fn files(&self, folder: &str) -> usize {
        fs::read_dir(self.root().join(folder)).unwrap().count()
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.root().join("index.json")).unwrap()).unwrap()
    }
}

fn keep(store: &Store, lease: &Lease, bytes: &[u8]) -> Digest {
    let mut draft = store.draft().unwrap();
    draft.write_all(bytes).unwrap();
    let file = draft.finish().unwrap();
    let key = FileKey::blob(&file.digest);
    store.hold(lease, &key, file.size);
    store.keep(&key, file).unwrap();
    key.digest
}

fn wasm(content: &str) -> Vec<u8> {
    wat::parse_str(format!("(module (data {content:?}))")).unwrap()
}

/// Puts all blobs of an artifact into the store; answers the digest of its manifest.
fn stage(store: &Store, lease: &Lease, content: &str, annotation: &str) -> Digest {
    let config = json!({"os": "wasip1", "architecture": "wasm"}).to_string();
    let layer = wasm(content);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": WASM_CONFIG, "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": WASM_LAYER, "digest": Digest::of(&layer), "size": layer.len()}],
        "annotations": {"note": annotation},
    });
    keep(store, lease, &layer);
    keep(store, lease, config.as_bytes());
    keep(store, lease, manifest.to_string().as_bytes())
}

fn add(store: &Store, content: &str, annotation: &str, names: &[&str]) -> Digest {
    let lease = Lease::default();
    let manifest = stage(store, &lease, content, annotation);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    store.commit(&lease, &manifest, None, &names).unwrap();
    manifest
}

#[test]
fn the_folder_is_an_image_layout_that_only_its_owner_reads() {
    let bed = Bed::new();
    let store = bed.open();
    let manifest = add(&store, "a", "", &["example.com/a:1"]);

    let marker = fs::read_to_string(bed.root().join("oci-layout")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&marker).unwrap(), json!({"imageLayoutVersion": "1.0.0"}));
    let index = bed.index();
    assert_eq!(index["schemaVersion"], 2);
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], json!(manifest));
    assert_eq!(entry["mediaType"], OCI_MANIFEST);
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "example.com/a:1");

    let blobs = bed.root().join("blobs/sha256");
    assert_eq!(entry["size"], fs::metadata(blobs.join(manifest.hex())).unwrap().len());
    for blob in fs::read_dir(&blobs).unwrap() {
        let blob = blob.unwrap();
        let content = fs::read(blob.path()).unwrap();
        assert_eq!(Digest::of(&content).hex(), blob.file_name().to_str().unwrap());
        assert_eq!(blob.metadata().unwrap().permissions().mode() & 0o777, 0o400);
    }
    for folder in ["", "blobs", "blobs/sha256", "unpacked/sha256", "tmp"] {
        let mode = fs::metadata(bed.root().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
}

#[test]
fn images_are_there_again_after_a_restart() {
    let bed = Bed::new();
    let (first, second) = {
        let store = bed.open();
        let first = add(&store, "a", "", &["example.com/a:1", "example.com/a:2"]);
        (first, add(&store, "b", "", &["example.com/b:1"]))
    };
    let store = bed.open();
    assert_eq!(store.list().len(), 2);
    let named = store.by_name("example.com/a:2").unwrap();
    assert_eq!(named.image.digest(), &first);
    assert_eq!(named.names.len(), 2);
    let artifact = named.image.artifact.as_ref().unwrap();
    assert_eq!(artifact.wasm.kind, WasmKind::Module);
    assert_eq!(fs::read(&artifact.wasm.path).unwrap(), wasm("a"));
    assert!(store.by_digest(&second).is_some());
    assert!(bed.forgotten.0.lock().is_empty());
}

#[test]
fn a_tag_that_moves_leaves_the_old_image_to_its_other_names() {
    let bed = Bed::new();
    let store = bed.open();
    let old = add(&store, "old", "", &["example.com/a:1", "example.com/a@old"]);
    let new = add(&store, "new", "", &["example.com/a:1", "example.com/a@new"]);
    assert_eq!(store.by_name("example.com/a:1").unwrap().image.digest(), &new);
    assert_eq!(store.by_name("example.com/a@old").unwrap().image.digest(), &old);
    assert_eq!(store.by_digest(&old).unwrap().names.len(), 1);
    assert_eq!(bed.index()["manifests"].as_array().unwrap().len(), 3);
}

#[test]
fn a_file_stays_as_long_as_an_image_or_a_pull_needs_it() {
    let bed = Bed::new();
    let store = bed.open();
    let layer = Digest::of(&wasm("shared"));
    let first = add(&store, "shared", "first", &["example.com/a:1"]);
    let second = add(&store, "shared", "second", &["example.com/b:1"]);
    assert_eq!(bed.files("blobs/sha256"), 4, "two manifests, one configuration, one layer");
    let usage = store.usage();
    assert_eq!(usage.files, 4);

    store.remove(&first).unwrap();
    assert_eq!(bed.files("blobs/sha256"), 3);
    assert_eq!(*bed.forgotten.0.lock(), [first.to_string()]);
    assert!(store.by_name("example.com/a:1").is_none());
    store.remove(&first).unwrap();

    let pulling = Lease::default();
    assert!(store.hold(&pulling, &FileKey::blob(&layer), wasm("shared").len() as u64));
    store.remove(&second).unwrap();
    assert!(store.path(&FileKey::blob(&layer)).exists());
    assert!(!bed.forgotten.0.lock().contains(&layer.to_string()));
    store.release(&pulling);
    assert_eq!(bed.files("blobs/sha256"), 0);
    assert!(bed.forgotten.0.lock().contains(&layer.to_string()));
    assert_eq!(store.usage(), Usage::default());
    assert_eq!(bed.index()["manifests"], json!([]));
}

#[test]
fn a_failed_pull_leaves_nothing() {
    let bed = Bed::new();
    let store = bed.open();
    let lease = Lease::default();
    let manifest = stage(&store, &lease, "a", "");
    store.release(&lease);
    assert_eq!(bed.files("blobs/sha256"), 0);

    // Neither does one of which the manifest turns out to be no image.
    let lease = Lease::default();
    let nothing = keep(&store, &lease, b"{}");
    assert!(store.commit(&lease, &nothing, None, &["example.com/a:1".to_owned()]).is_err());
    assert_eq!(bed.files("blobs/sha256"), 0);
    assert!(store.by_digest(&manifest).is_none());
    drop(store.draft().unwrap());
    assert_eq!(bed.files("tmp"), 0);
}

#[test]
fn what_a_killed_process_has_left_is_swept() {
    let bed = Bed::new();
    let whole = {
        let store = bed.open();
        let whole = add(&store, "whole", "", &["example.com/a:1"]);
        // Killed after the last blob and before the index.
        stage(&store, &Lease::default(), "orphan", "");
        whole
    };
    fs::write(bed.root().join("tmp/.tmpHalf"), b"half of an ind").unwrap();
    fs::write(bed.root().join("unpacked/sha256").join(Digest::of(b"x").hex()), b"x").unwrap();

    let store = bed.open();
    assert_eq!(store.list().len(), 1);
    assert!(store.by_digest(&whole).is_some());
    assert_eq!(bed.files("blobs/sha256"), 3);
    assert_eq!((bed.files("tmp"), bed.files("unpacked/sha256")), (0, 0));
}

#[test]
fn a_damaged_image_is_dropped_and_the_others_stay() {
    for damage in ["layer is gone", "layer is short", "manifest has changed", "config has changed"] {
        let bed = Bed::new();
        let (kept, broken) = {
            let store = bed.open();
            (add(&store, "kept", "", &["example.com/a:1"]), add(&store, "broken", "", &["example.com/b:1"]))
        };
        let blobs = bed.root().join("blobs/sha256");
        let layer = blobs.join(Digest::of(&wasm("broken")).hex());
        let config = json!({"os": "wasip1", "architecture": "wasm"}).to_string();
        let config = blobs.join(Digest::of(config.as_bytes()).hex());
        let replace = |path: &Path, change: fn(String) -> String| {
            let content = String::from_utf8(fs::read(path).unwrap()).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, change(content)).unwrap();
        };
        match damage {
            "layer is gone" => fs::remove_file(&layer).unwrap(),
            "layer is short" => replace(&layer, |content| content[..content.len() - 1].to_owned()),
            // Both still parse.
            "manifest has changed" => {
                replace(&blobs.join(broken.hex()), |content| content.replace("note", "nota"));
            }
            _ => replace(&config, |content| content.replace("wasip1", "wasip2")),
        }
        let store = bed.open();
        // The configuration belongs to both.
        let expected = if damage == "config has changed" { 0 } else { 1 };
        assert_eq!(store.list().len(), expected, "{damage}");
        assert_eq!(store.by_digest(&kept).is_some(), expected == 1, "{damage}");
        assert_eq!(bed.index()["manifests"].as_array().unwrap().len(), expected, "{damage}");
        // And can be had again.
        drop(store);
        let store = bed.open();
        assert_eq!(add(&store, "broken", "", &["example.com/b:1"]), broken);
        assert!(store.by_digest(&broken).is_some(), "{damage}");
    }
}

#[test]
fn a_damaged_index_does_not_keep_a_node_from_starting() {
    for content in
        ["", "{", "[]", "{\"schemaVersion\": 2, \"manifests\": [{\"digest\": \"../x\", \"size\": 1}]}"]
    {
        let bed = Bed::new();
        add(&bed.open(), "a", "", &["example.com/a:1"]);
        fs::write(bed.root().join("index.json"), content).unwrap();
        let store = bed.open();
        assert!(store.list().is_empty(), "{content}");
        assert_eq!(bed.files("blobs/sha256"), 0);
        assert_eq!(bed.index()["manifests"], json!([]));
    }
}

#[test]
fn two_processes_cannot_have_it_open() {
    let bed = Bed::new();
    let store = bed.open();
    let error = Store::open(bed.root(), bed.forgotten.clone()).err().expect("the store is locked");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    drop(store);
    bed.open();
}

#[test]
fn concurrent_changes_all_reach_the_index() {
    let bed = Bed::new();
    let store = Arc::new(bed.open());
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for i in 0..5 {
                    let doomed =
                        add(&store, &format!("{thread}/{i}/doomed"), "", &[&format!("e.x/{thread}-{i}:d")]);
                    add(&store, &format!("{thread}/{i}"), "", &[&format!("e.x/{thread}-{i}:k")]);
                    store.remove(&doomed).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.list().len(), 40);
    assert_eq!(bed.index()["manifests"].as_array().unwrap().len(), 40);
    drop(store);
    assert_eq!(bed.open().list().len(), 40);
}

/// This test is its own victim: with the variable set it changes the store until it is killed.
#[test]
fn a_store_survives_being_killed_at_any_moment() {
    const VICTIM: &str = "CORACLE_TEST_VICTIM_ROOT";
    if let Some(root) = std::env::var_os(VICTIM) {
        let store = Store::open(root.into(), Arc::new(Forgotten::default())).unwrap();
        for i in 0.. {
            let image = add(&store, &format!("{i}"), "", &[&format!("example.com/a:{}", i % 7)]);
            if i % 3 == 0 {
                store.remove(&image).unwrap();
            }
        }
    }

    let bed = Bed::new();
    let name = concat!(module_path!(), "::a_store_survives_being_killed_at_any_moment");
    let (_, name) = name.split_once("::").unwrap();
    let mut images = 0;
    for round in 0..12 {
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(VICTIM, bed.root())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60 + 13 * round));
        assert!(victim.try_wait().unwrap().is_none(), "the victim ended by itself");
        victim.kill().unwrap();
        victim.wait().unwrap();

        let store = bed.open();
        let mut needed = BTreeSet::new();
        for named in store.list() {
            images += 1;
            for (key, size) in &named.image.files {
                let content = fs::read(store.path(key)).unwrap();
                assert_eq!((Digest::of(&content), content.len() as u64), (key.digest.clone(), *size));
                needed.insert(key.digest.clone());
            }
        }
        assert_eq!(bed.files("blobs/sha256"), needed.len());
        assert_eq!(bed.files("tmp"), 0);
    }
    assert!(images > 0, "no victim came as far as an image");
}
