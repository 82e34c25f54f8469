//! Empty directories, host paths, and removing trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountFlags, mount, mount_bind};
use serde_json::{Value, json};

use super::support::{MountDir, as_ordinary_user, is_root, mode, owner, pod, read};
use crate::empty_dir::EmptyDir;
use crate::host_path::resolve;
use crate::remove::remove_tree;
use crate::spec::VolumeSpec;

fn empty_dir(source: Value, pod_spec: Value, group: Option<u32>) -> EmptyDir {
    let source: EmptyDirVolumeSource = serde_json::from_value(source).unwrap();
    let volume = Volume { name: "v".into(), empty_dir: Some(source), ..Default::default() };
    let pod = pod("uid", json!([]), json!({ "spec": pod_spec }));
    let allocatable = || BTreeMap::from([("memory".to_owned(), Quantity("1Gi".into()))]);
    let VolumeSpec::EmptyDir(spec) = VolumeSpec::parse(&volume).unwrap() else { panic!("not an emptyDir") };
    EmptyDir::new(&spec, &pod, allocatable, group).unwrap()
}

#[test]
fn an_empty_dir_is_open_to_everybody_unless_it_says_otherwise() {
    for (source, expected) in
        [(json!({}), 0o777), (json!({ "mode": 0o750 }), 0o750), (json!({ "mode": 0o1777 }), 0o1777)]
    {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        empty_dir(source, json!({}), None).set_up(&volume).unwrap();
        assert_eq!(mode(&volume), expected);
    }
}

#[test]
fn an_empty_dir_that_exists_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    // Left by an agent that died while it made one.
    fs::create_dir(dir.path().join(".new-v")).unwrap();
    let empty_dir = empty_dir(json!({}), json!({}), None);
    empty_dir.set_up(&volume).unwrap();
    fs::write(volume.join("file"), "kept").unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).unwrap();
    empty_dir.set_up(&volume).unwrap();
    assert_eq!(mode(&volume), 0o700);
    assert_eq!(read(volume.join("file")), "kept");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_dir_belongs_to_the_fs_group() {
    if !is_root("emptyDir with fsGroup") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    empty_dir(json!({ "mode": 0o700 }), json!({}), Some(1234)).set_up(&volume).unwrap();
    assert_eq!((owner(&volume), mode(&volume)), ((0, 1234), 0o2770));
}

#[test]
fn memory_is_a_tmpfs_of_the_right_size() {
    if !is_root("emptyDir with medium Memory") {
        return;
    }
    let containers = |limits: &[&str]| {
        let containers: Vec<_> = limits
            .iter()
            .map(|limit| {
                let limits = if limit.is_empty() { json!({}) } else { json!({ "memory": limit }) };
                json!({ "name": "c", "resources": { "limits": limits } })
            })
            .collect();
        json!({ "containers": containers })
    };
    let with_init = json!({
        "containers": [{ "name": "c", "resources": { "limits": { "memory": "64Mi" } } }],
        "initContainers": [
            { "name": "s", "restartPolicy": "Always", "resources": { "limits": { "memory": "16Mi" } } },
            { "name": "i", "resources": { "limits": { "memory": "100Mi" } } },
        ],
        "overhead": { "memory": "4Mi" },
    });
    let pod_level =
        json!({ "containers": [{ "name": "c" }], "resources": { "limits": { "memory": "32Mi" } } });
    let mib = 1 << 20;
    let table = [
        (json!({ "medium": "Memory" }), containers(&[""]), 1024 * mib),
        (json!({ "medium": "Memory" }), containers(&["128Mi", "64Mi"]), 192 * mib),
        (json!({ "medium": "Memory" }), containers(&["128Mi", ""]), 1024 * mib),
        (json!({ "medium": "Memory", "sizeLimit": "8Mi" }), containers(&["128Mi"]), 8 * mib),
        (json!({ "medium": "Memory", "sizeLimit": "1Ti" }), containers(&["128Mi"]), 128 * mib),
        (json!({ "medium": "Memory", "sizeLimit": "0" }), containers(&["128Mi"]), 128 * mib),
        (json!({ "medium": "Memory" }), with_init, 120 * mib),
        (json!({ "medium": "Memory" }), pod_level, 32 * mib),
    ];
    for (source, spec, size) in table {
        let dir = MountDir::new();
        let volume = dir.path().join("v");
        let case = format!("{source} {spec}");
        let empty_dir = empty_dir(source, spec, Some(77));
        empty_dir.set_up(&volume).unwrap();
        let statfs = rustix::fs::statfs(&volume).unwrap();
        assert_eq!(statfs.f_blocks * statfs.f_bsize as u64, size, "{case}");
        assert_eq!((owner(&volume), mode(&volume)), ((0, 77), 0o3777));

        // A second time it stays the same mount.
        fs::write(volume.join("file"), "kept").unwrap();
        empty_dir.set_up(&volume).unwrap();
        assert_eq!(read(volume.join("file")), "kept");
        remove_tree(&volume).unwrap();
        assert!(dir.mounts().is_empty());
    }
}

fn host_path(path: &Path, path_type: &str) -> HostPathVolumeSource {
    HostPathVolumeSource { path: path.to_str().unwrap().to_owned(), type_: Some(path_type.to_owned()) }
}

#[test]
fn host_paths_are_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(dir.path()).unwrap();
    let root = real.join("root");
    fs::create_dir(real.join("dir")).unwrap();
    fs::write(real.join("file"), "").unwrap();
    symlink("dir", real.join("link")).unwrap();
    symlink("nowhere", real.join("dangling")).unwrap();
    let _listener = UnixListener::bind(real.join("socket")).unwrap();
    // What is found there: the real path, or a word of the message.
    let table = [
        ("", "dir", Ok("dir")),
        ("", "file", Ok("file")),
        ("", "link", Ok("dir")),
        ("", "made-1/below", Ok("made-1/below")),
        ("", "dangling", Err("link to nothing")),
        ("Directory", "dir", Ok("dir")),
        ("Directory", "link", Ok("dir")),
        ("Directory", "file", Err("is not a directory, it is a file")),
        ("Directory", "missing", Err("No such file")),
        ("DirectoryOrCreate", "made-2/below", Ok("made-2/below")),
        ("DirectoryOrCreate", "link/made-3", Ok("dir/made-3")),
        ("DirectoryOrCreate", "file", Err("is not a directory")),
        ("File", "file", Ok("file")),
        ("File", "dir", Err("is not a file, it is a directory")),
        ("FileOrCreate", "made-4", Ok("made-4")),
        ("FileOrCreate", "missing/made", Err("No such file")),
        ("Socket", "socket", Ok("socket")),
        ("Socket", "file", Err("is not a socket")),
        ("CharDevice", "file", Err("is not a character device")),
        ("BlockDevice", "file", Err("is not a block device")),
        ("Other", "file", Err("\"Other\" is not a type of hostPath")),
        ("", "dir/../file", Err("must not contain '..'")),
    ];
    for (path_type, path, expected) in table {
        let found = resolve(&host_path(&dir.path().join(path), path_type), &root);
        match expected {
            Ok(path) => assert_eq!(found.unwrap(), real.join(path), "{path_type} {path}"),
            Err(message) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(message), "{path_type} {path}: {error}");
            }
        }
    }
    assert!(real.join("made-2/below").is_dir() && real.join("made-4").is_file());
    assert!(resolve(&host_path(Path::new("/dev/null"), "CharDevice"), &root).is_ok());
    assert!(
        resolve(&host_path(Path::new("relative"), ""), &root).unwrap_err().to_string().contains("absolute")
    );
}

#[test]
fn host_paths_never_show_the_root_directory() {
    let dir = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(dir.path()).unwrap();
    let root = real.join("lib/kubelet");
    fs::create_dir_all(root.join("pods/uid")).unwrap();
    fs::create_dir(real.join("lib/kubelet-other")).unwrap();
    symlink("lib/kubelet/pods", real.join("inside")).unwrap();
    symlink("/", real.join("everything")).unwrap();
    let refused = [
        "lib/kubelet",
        "lib/kubelet/",
        "lib/./kubelet",
        "lib/kubelet/pods/uid",
        "lib/kubelet/made",
        "lib",
        "",
        "inside",
        "inside/uid",
        "inside/made",
        "everything",
    ];
    for path in refused {
        for path_type in ["", "DirectoryOrCreate", "Directory"] {
            let result = resolve(&host_path(&dir.path().join(path), path_type), &root);
            assert!(matches!(result, Err(VolumeError::Invalid(_))), "{path}: {result:?}");
        }
    }
    assert!(matches!(resolve(&host_path(Path::new("/"), ""), &root), Err(VolumeError::Invalid(_))));
    assert!(!root.join("made").exists() && !root.join("pods/made").exists());
    assert!(resolve(&host_path(&dir.path().join("lib/kubelet-other"), ""), &root).is_ok());
}

#[test]
fn removing_a_tree_touches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/b/file"), "").unwrap();
    fs::write(tree.join("a/.moved-1"), "").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink("../../outside/file", tree.join("a/file-link")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    let _listener = UnixListener::bind(tree.join("socket")).unwrap();

    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // What is gone is gone.
    remove_tree(&tree).unwrap();
    remove_tree(&tree.join("never/was")).unwrap();
}

#[test]
fn a_link_in_place_of_the_tree_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("outside/dir")).unwrap();
    symlink("outside", dir.path().join("tree")).unwrap();
    assert!(remove_tree(&dir.path().join("tree")).is_err());
    assert!(dir.path().join("outside/dir").exists());
}

#[test]
fn removes_trees_deeper_than_any_stack() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut current = openat(CWD, &tree, OFlags::PATH, Mode::empty()).unwrap();
    // More levels than the usual limit on open files.
    for level in 0..1_500 {
        mkdirat(&current, "deep", Mode::RWXU).unwrap();
        if level % 50 == 0 {
            mkdirat(&current, "beside", Mode::RWXU).unwrap();
        }
        current = openat(&current, "deep", OFlags::PATH, Mode::empty()).unwrap();
    }
    drop(current);
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn an_ordinary_user_removes_what_it_cannot_enter() {
    as_ordinary_user(|| {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for (at, permissions) in [0o000, 0o111, 0o222, 0o444, 0o555, 0o666].into_iter().enumerate() {
            let inner = tree.join(at.to_string());
            fs::create_dir_all(inner.join("a/b")).unwrap();
            fs::write(inner.join("file"), "").unwrap();
            fs::write(inner.join("a/file"), "").unwrap();
            fs::set_permissions(inner.join("a"), fs::Permissions::from_mode(permissions)).unwrap();
            fs::set_permissions(&inner, fs::Permissions::from_mode(permissions)).unwrap();
        }
        let mut deep = tree.clone();
        deep.extend(["x"; 80]);
        fs::create_dir_all(&deep).unwrap();
        for path in deep.ancestors().take(80) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    });
}

#[test]
fn what_is_mounted_in_a_tree_is_unmounted_and_not_entered() {
    if !is_root("unmounting") {
        return;
    }
    let dir = MountDir::new();
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("precious"), "").unwrap();
    let tree = dir.path().join("tree");
    for at in ["tmpfs", "bind", "deep/a/b/bind"] {
        fs::create_dir_all(tree.join(at)).unwrap();
    }
    fs::write(tree.join("file"), "").unwrap();
    mount("tmpfs", tree.join("tmpfs"), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir(tree.join("tmpfs/inner")).unwrap();
    mount("tmpfs", tree.join("tmpfs/inner"), "tmpfs", MountFlags::empty(), None).unwrap();
    // On the same file system: only the mount tells that it is elsewhere.
    mount_bind(&host, tree.join("bind")).unwrap();
    mount_bind(&host, tree.join("bind")).unwrap();
    mount_bind(&host, tree.join("deep/a/b/bind")).unwrap();
    mount_bind(host.join("precious"), tree.join("file")).unwrap();
    // Somebody still uses it.
    let busy = fs::File::open(tree.join("tmpfs")).unwrap();

    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert!(host.join("precious").exists());
    assert!(dir.mounts().is_empty());
    assert!(busy.metadata().unwrap().ino() > 0);
}
