//! Hosts files, termination logs and files of variables.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use coracle_core::ports::{PodFiles as _, Volumes as _};
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn a_hosts_file_is_written_in_place_and_readable_for_everybody() {
    let bed = Bed::new();
    let path = bed.manager.write_hosts_file("uid", b"first\n".to_vec()).await.unwrap();
    assert_eq!(path, fs::canonicalize(bed.pod_dir("uid")).unwrap().join("etc-hosts"));
    let inode = fs::metadata(&path).unwrap().ino();
    // A container may change it, and its mode.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    bed.manager.write_hosts_file("uid", b"2\n".to_vec()).await.unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), meta.ino()), ("2\n", inode));
    assert_eq!(meta.permissions().mode() & 0o777, 0o644);

    assert_eq!(bed.manager.known_pods().await.unwrap(), ["uid"]);
    bed.manager.unmount("uid").await.unwrap();
    assert!(!path.exists() && bed.manager.known_pods().await.unwrap().is_empty());
}

#[tokio::test]
async fn each_instance_has_a_file_of_its_own_and_old_ones_go() {
    let bed = Bed::new();
    let folder = fs::canonicalize(bed.root.path()).unwrap().join("pods/uid/containers/main");
    for restarts in 0..20 {
        let path = bed.manager.make_termination_log("uid", "main", restarts).await.unwrap();
        assert_eq!(path.parent(), Some(&*folder));
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (0, 0o666), "{restarts}");
        fs::write(&path, restarts.to_string()).unwrap();
    }
    let mut kept: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    kept.sort();
    let contents: Vec<_> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(contents, ["17", "18", "19"]);
    // The same instance, made again, has nothing of the failed attempt.
    let again = bed.manager.make_termination_log("uid", "main", 19).await.unwrap();
    assert_eq!((&again, fs::metadata(&again).unwrap().len()), (&kept[2], 0));
    for container in ["..", "a/b", ""] {
        let error = bed.manager.make_termination_log("uid", container, 0).await.unwrap_err();
        assert!(error.to_string().contains("cannot be the name"), "{error}");
    }
}

#[tokio::test]
async fn only_the_end_of_a_pods_own_file_is_read() {
    let bed = Bed::new();
    let read = async |path: &Path| {
        let content = bed.manager.read_termination_log("uid", path, 8).await.unwrap();
        content.map(|it| String::from_utf8(it).unwrap())
    };
    let path = bed.manager.make_termination_log("uid", "main", 0).await.unwrap();
    assert_eq!(read(&path).await.as_deref(), Some(""));
    for (written, expected) in [("short", "short"), ("12345678", "12345678"), ("0123456789", "23456789")] {
        fs::write(&path, written).unwrap();
        assert_eq!(read(&path).await.as_deref(), Some(expected));
    }
    // A sparse file, as large as a container likes to make it, costs nothing.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(read(&path).await.as_deref(), Some("\0\0\0\0\0\0\0\0"));

    fs::remove_file(&path).unwrap();
    assert_eq!(read(&path).await, None);
    fs::create_dir(&path).unwrap();
    assert_eq!(read(&path).await, None);
    // What is not this pod's is not shown: of another pod, of a volume, of the node.
    let other = bed.manager.make_termination_log("other", "main", 0).await.unwrap();
    let volume = bed.volume("uid", "empty-dir", "v");
    fs::create_dir_all(&volume).unwrap();
    symlink("/etc/passwd", volume.join("link")).unwrap();
    let (link, passwd) = (volume.join("link"), PathBuf::from("/etc/passwd"));
    for foreign in [&other, &link, &passwd, &PathBuf::from("/"), &PathBuf::from("relative")] {
        assert_eq!(read(foreign).await, None, "{}", foreign.display());
    }
    let link = path.with_file_name("link");
    symlink("/etc/passwd", &link).unwrap();
    assert!(bed.manager.read_termination_log("uid", &link, 8).await.is_err());
}

#[tokio::test]
async fn a_file_of_variables_is_read_where_a_container_wrote_it_and_nowhere_else() {
    let bed = Bed::new();
    let volumes = json!([
        { "name": "work", "emptyDir": {} }, { "name": "other", "emptyDir": {} },
        { "name": "host", "hostPath": { "path": "/etc" } },
    ]);
    let pod = pod("uid", volumes, json!({}));
    let read = async |volume: &str, path: &str| {
        let content = bed.manager.read_env_file(&pod, volume, path).await;
        content.map(|it| String::from_utf8(it).unwrap()).map_err(|error| error.to_string())
    };
    let missing = "cannot find the volume \"work\" referenced by FileKeyRef".to_owned();
    assert_eq!(read("work", "env").await, Err(missing), "not before it is mounted");
    bed.manager.mount(&pod).await.unwrap();
    let work = bed.volume("uid", "empty-dir", "work");
    fs::create_dir(work.join("deep")).unwrap();
    fs::write(work.join("deep/env"), "A='1'\n").unwrap();
    symlink("/deep/env", work.join("link")).unwrap();
    for path in ["deep/env", "link"] {
        assert_eq!(read("work", path).await.as_deref(), Ok("A='1'\n"), "{path}");
    }
    symlink("../../../../../../../../etc/passwd", work.join("out")).unwrap();
    symlink("/etc/passwd", work.join("absolute")).unwrap();
    fs::write(work.join("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    for (volume, path, expected) in [
        ("work", "out", "No such file"),
        ("work", "absolute", "No such file"),
        ("work", "none", "No such file"),
        ("work", "deep", "not an ordinary file"),
        ("work", "large", "more than 1048576 bytes"),
        ("work", "../env", "must not contain"),
        ("work", "/deep/env", "must not be an absolute path"),
        ("host", "passwd", "cannot find the volume"),
        ("none", "env", "cannot find the volume"),
    ] {
        let error = read(volume, path).await.unwrap_err();
        assert!(error.contains(expected), "{volume} {path}: {error}");
    }
}
