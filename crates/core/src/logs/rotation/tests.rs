//! Upstream's tables (`container_log_manager_test.go`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use coracle_provider::fake::{Call, FakeProvider};
use coracle_provider::{ContainerStatus, Error};
use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::files::{cleanup_unused_logs, compress_log, older_files, remove_excess_logs};
use super::*;
use crate::fakes::container_status;
use crate::providers::RegisteredProvider;

const P: &str = "p";

struct World {
    folder: TempDir,
    provider: Arc<FakeProvider>,
    manager: ContainerLogManager,
}

impl World {
    fn new(max_size: u64, max_files: usize, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let provider = FakeProvider::new(P, clock::now);
        let registered = RegisteredProvider {
            provider: provider.clone(),
            handlers: Vec::new(),
            relist_period: Duration::from_secs(60),
        };
        let policy = LogRotatePolicy {
            max_size,
            max_files,
            max_workers: 2,
            monitoring_period: Duration::from_secs(10),
        };
        let manager =
            ContainerLogManager::new(Providers::new(vec![registered]), Arc::new(PodCache::default()), policy);
        Self { folder, provider, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add_container(&self, log: &str, state: ContainerState) {
        let status = ContainerStatus { log_path: self.path(log), state, ..container_status("pod", log, 0) };
        self.manager.cache.set_container(P, Arc::new(status));
    }

    fn files(&self) -> Vec<String> {
        names(&list(&self.folder))
    }
}

fn list(folder: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn folder_with(files: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = files.iter().map(|name| folder.path().join(name)).collect();
    for file in &files {
        fs::write(file, "").unwrap();
    }
    (folder, files)
}

/// With every time as `NOW`.
fn timeless(names: &[String]) -> Vec<String> {
    let today = clock::now().strftime("%Y").to_string();
    let shown = |name: &String| match name.split_once(&format!(".{today}")) {
        Some((log, time)) if time.len() == "0102-030405".len() => format!("{log}.NOW"),
        _ => name.clone(),
    };
    names.iter().map(shown).collect()
}

#[test]
fn older_files_are_those_of_this_log_by_age() {
    let (folder, _) = folder_with(&["1.log.2.gz", "1.log", "1.log.1", "11.log.1", "1.logs", "2.log.1"]);
    assert_eq!(names(&older_files(&folder.path().join("1.log")).unwrap()), ["1.log.1", "1.log.2.gz"]);
    assert!(older_files(&folder.path().join("none/1.log")).unwrap().is_empty());
}

#[tokio::test]
async fn logs_of_running_containers_that_are_too_long_are_rotated() {
    const LONG: &str = "longer than 10 bytes";
    let world = World::new(
        10,
        3,
        &[
            ("test-log-1", "short"),
            ("test-log-2", LONG),
            ("test-log-3", LONG),
            ("test-log-4", LONG),
            ("test-log-3.00000000-000001", "whatever its length"),
            ("test-log-3.00000000-000000.gz", "whatever its length"),
        ],
    );
    for log in ["test-log-1", "test-log-2", "test-log-3"] {
        world.add_container(log, ContainerState::Running);
    }
    world.add_container("test-log-4", ContainerState::Exited);
    world.manager.rotate_logs().await;
    // The fake makes no new files.
    let expected =
        ["test-log-1", "test-log-2.NOW", "test-log-3.00000000-000001.gz", "test-log-3.NOW", "test-log-4"];
    assert_eq!(timeless(&world.files()), expected);
    assert_eq!(world.provider.calls(Call::ReopenContainerLog), 2);
}

#[tokio::test]
async fn a_log_that_is_missing_is_opened_anew() {
    let world = World::new(10, 3, &[]);
    world.add_container("0.log", ContainerState::Running);
    world.manager.rotate_logs().await;
    assert_eq!(world.provider.calls(Call::ReopenContainerLog), 1);
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_anew_stays_where_it_was() {
    let cases = [(None, "0.log.NOW"), (Some(Error::internal("it hangs")), "0.log")];
    for (error, expected) in cases {
        let world = World::new(1, 2, &[("0.log", "content")]);
        let fails = error.is_some();
        world.provider.set_error(Call::ReopenContainerLog, error);
        let rotated = rotate_latest_log(&*world.provider, "id", &world.path("0.log")).await;
        assert_eq!(rotated.is_err(), fails);
        assert_eq!(timeless(&world.files()), [expected]);
    }
}

#[test]
fn all_files_of_a_removed_container_go() {
    let (folder, _) = folder_with(&[
        "test-log-1",
        "test-log-2",
        "test-log-3",
        "test-log-2.00000000-000000.gz",
        "test-log-2.00000000-000001",
        "test-log-3.00000000-000000.gz",
        "test-log-3.00000000-000001",
    ]);
    let log = folder.path().join("test-log-3");
    clean(&log).unwrap();
    let left = ["test-log-1", "test-log-2", "test-log-2.00000000-000000.gz", "test-log-2.00000000-000001"];
    assert_eq!(names(&list(&folder)), left);
    clean(&log).unwrap();
    clean(&folder.path().join("none/0.log")).unwrap();
}

#[test]
fn what_interrupted_rotations_left_is_removed() {
    let (folder, files) = folder_with(&["test-log-1", "test-log-1.tmp", "test-log-2", "test-log-2.gz"]);
    let in_use = cleanup_unused_logs(files).unwrap();
    assert_eq!(names(&in_use), ["test-log-1", "test-log-2.gz"]);
    assert_eq!(list(&folder), in_use);
}

#[test]
fn the_oldest_are_removed_so_that_two_more_fit() {
    let cases = BTreeMap::from([
        (2, vec![]),
        (3, vec!["test-log-4"]),
        (6, vec!["test-log-1", "test-log-2", "test-log-3", "test-log-4"]),
    ]);
    for (max_files, expected) in cases {
        let (folder, files) = folder_with(&["test-log-3", "test-log-1", "test-log-2", "test-log-4"]);
        let kept = remove_excess_logs(files, max_files).unwrap();
        assert_eq!(names(&kept), expected, "{max_files}");
        assert_eq!(list(&folder), kept, "{max_files}");
    }
}

#[test]
fn a_compressed_log_has_the_same_content_and_the_same_readers() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, files) = folder_with(&["0.log.20260102-030405"]);
    fs::write(&files[0], "test log content").unwrap();
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o640)).unwrap();
    compress_log(&files[0]).unwrap();
    let left = list(&folder);
    assert_eq!(names(&left), ["0.log.20260102-030405.gz"]);
    assert_eq!(fs::metadata(&left[0]).unwrap().permissions().mode() & 0o777, 0o640);
    let mut content = String::new();
    GzDecoder::new(fs::File::open(&left[0]).unwrap()).read_to_string(&mut content).unwrap();
    assert_eq!(content, "test log content");
    assert!(compress_log(&folder.path().join("unknown")).is_err());
    assert_eq!(list(&folder), left);
}

#[tokio::test(start_paused = true)]
async fn rounds_come_by_the_interval() {
    let world = World::new(1, 2, &[]);
    world.add_container("0.log", ContainerState::Running);
    let _ = tokio::time::timeout(Duration::from_secs(25), world.manager.run()).await;
    assert_eq!(world.provider.calls(Call::ReopenContainerLog), 3);
}
