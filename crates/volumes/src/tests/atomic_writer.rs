//! Files that change all at once.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_core::ports::VolumeError;
use rustix::fs::{Mode, OFlags, openat};

use super::support::{list, mode, read};
use crate::atomic_writer::{AtomicWriter, clean_path};
use crate::payload::{FileProjection, Payload};

fn payload(files: &[(&str, &str)]) -> Payload {
    let projection = |data: &str| FileProjection { data: data.as_bytes().to_vec(), mode: 0o644, user: None };
    files.iter().map(|(path, data)| ((*path).to_owned(), projection(data))).collect()
}

fn write(dir: &Path, files: &[(&str, &str)]) -> bool {
    AtomicWriter::new(dir, false).write(&payload(files), || Ok(())).unwrap()
}

/// The names in a volume without the writer's own.
fn visible(dir: &Path) -> Vec<String> {
    list(dir).into_iter().filter(|name| !name.starts_with("..")).collect()
}

fn data_dir(dir: &Path) -> String {
    fs::read_link(dir.join("..data")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn shows_exactly_the_files_of_the_last_payload() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    let steps: [&[(&str, &str)]; 7] = [
        &[("a", "1"), ("b/c", "2"), ("b/d/e", "3")],
        &[("a", "1"), ("b/c", "changed"), ("b/d/e", "3")],
        &[("a", "1"), ("b/d/e", "3")],
        &[("b/d/e", "3"), ("b/f", "")],
        &[("b", "a file now")],
        &[],
        &[("a", "again")],
    ];
    for files in steps {
        assert!(write(dir, files));
        let mut expected: Vec<_> = files.iter().map(|(p, _)| p.split('/').next().unwrap()).collect();
        expected.dedup();
        assert_eq!(visible(dir), expected);
        for (path, data) in files {
            assert_eq!(read(dir.join(path)), *data, "{path}");
        }
        // Nothing is left of earlier versions.
        assert_eq!(list(dir).len(), expected.len() + 2);
        assert!(!dir.join(data_dir(dir)).join("b/c").exists() || files.iter().any(|(p, _)| *p == "b/c"));
    }
}

#[test]
fn an_unchanged_payload_writes_nothing() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    let files = [("a", "1"), ("b/c", "2")];
    assert!(write(dir, &files));
    let before = (data_dir(dir), fs::metadata(dir).unwrap().modified().unwrap());
    assert!(!write(dir, &files));
    assert_eq!((data_dir(dir), fs::metadata(dir).unwrap().modified().unwrap()), before);

    // What somebody removed comes back, still without new data.
    fs::remove_file(dir.join("a")).unwrap();
    assert!(!write(dir, &files));
    assert_eq!(read(dir.join("a")), "1");
    assert_eq!(data_dir(dir), before.0);
}

#[test]
fn sets_modes_whatever_the_umask() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    let mut files = payload(&[("dir/a", ""), ("b", ""), ("c", ""), ("d", "")]);
    for (path, mode) in [("dir/a", 0o666), ("b", 0o400), ("c", 0o777), ("d", 0)] {
        files.get_mut(path).unwrap().mode = mode;
    }
    AtomicWriter::new(dir, false).write(&files, || Ok(())).unwrap();
    for (path, file) in &files {
        assert_eq!(mode(dir.join(path)), file.mode, "{path}");
    }
    assert_eq!(mode(dir.join("..data")), 0o755);
    assert_eq!(mode(dir.join("dir")), 0o755);
}

#[test]
fn recovers_from_an_agent_that_died_half_way() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    for step in ["1", "2"] {
        symlink("..2026_01_01_00_00_00.1", dir.join("..data_tmp")).unwrap();
        fs::create_dir(dir.join("..2026_01_01_00_00_00.1")).unwrap();
        fs::write(dir.join("..2026_01_01_00_00_00.1/a"), "half").unwrap();
        assert!(write(dir, &[("a", step)]));
        assert_eq!(read(dir.join("a")), step);
        assert_eq!(list(dir), vec![data_dir(dir), "..data".into(), "a".into()]);
    }
}

#[test]
fn leaves_alone_what_others_made() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    fs::create_dir(dir.join("mount-point")).unwrap();
    fs::write(dir.join("file-mount-point"), "").unwrap();
    write(dir, &[("a", "1"), ("mount-point", "shadowed")]);
    write(dir, &[("b", "1")]);
    assert_eq!(visible(dir), ["b", "file-mount-point", "mount-point"]);
    assert!(dir.join("mount-point").is_dir());
}

#[test]
fn nothing_changes_if_permissions_cannot_be_set() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    write(dir, &[("a", "old")]);
    let before = list(dir);
    let result = AtomicWriter::new(dir, false)
        .write(&payload(&[("a", "new"), ("b", "new")]), || Err(VolumeError::Io("no".into())));
    assert!(matches!(result, Err(VolumeError::Io(_))));
    assert_eq!(list(dir), before);
    assert_eq!(read(dir.join("a")), "old");
}

#[test]
fn readers_never_see_a_mixture() {
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path();
    let generation = |n: usize| n.to_string().repeat(20_000);
    let write_generation = |n: usize| {
        let data = generation(n % 10);
        write(dir, &[("a", &data), ("sub/b", &data)]);
    };
    write_generation(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                seen += usize::from(read_snapshot(dir).is_some());
                // A reader by name can find a file gone, but never a part of one.
                if let Ok(text) = fs::read_to_string(dir.join("a")) {
                    assert_eq!(text.len(), 20_000);
                    assert!(text.bytes().all(|b| b == text.as_bytes()[0]), "torn");
                }
            }
            seen
        });
        for n in 1..400 {
            write_generation(n);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0, "the reader never got a whole snapshot");
    });
}

/// Reads all files of one version, if that version lasts long enough.
fn read_snapshot(dir: &Path) -> Option<()> {
    let data = fs::File::open(dir.join("..data")).ok()?;
    let read_at = |path: &str| {
        let mut text = String::new();
        fs::File::from(openat(&data, path, OFlags::RDONLY, Mode::empty()).ok()?)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    };
    let (a, b) = (read_at("a")?, read_at("sub/b")?);
    assert_eq!(a, b, "two files of different versions");
    Some(())
}

#[test]
fn paths_stay_in_the_volume() {
    let valid =
        [("a", "a"), ("a/b", "a/b"), ("a//b/./c", "a/b/c"), ("./a", "a"), (".a", ".a"), ("a/..b", "a/..b")];
    for (path, clean) in valid {
        assert_eq!(clean_path(path).unwrap(), clean);
    }
    let long_name = "x".repeat(256);
    let long_path = "x/".repeat(2049);
    for path in
        ["", ".", "/a", "..", "../a", "a/../b", "a/..", "..a", "..data", "./..data", &long_name, &long_path]
    {
        assert!(matches!(clean_path(path), Err(VolumeError::Invalid(_))), "{path}");
    }
}
