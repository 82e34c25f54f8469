//! Volumes from the first mount to the last.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::{ApiError, VolumeError, Volumes};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use super::support::{
    Bed, FakeIssuer, FakeObjects, as_ordinary_user, is_root, kube_api_access, list, mode, pod, read,
};

/// What every ordinary pod has.
fn ordinary_pod(uid: &str) -> Arc<Pod> {
    pod(uid, json!([{ "name": "data", "emptyDir": {} }, kube_api_access()]), json!({}))
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_pod_costs_one_token() {
    let bed = Bed::new();
    let pod = ordinary_pod("uid-1");
    bed.manager.check(&pod).unwrap();
    bed.manager.mount(&pod).await.unwrap();

    let access = bed.volume("uid-1", "projected", "kube-api-access");
    assert_eq!(read(access.join("ca.crt")), "CERTIFICATE");
    assert_eq!(read(access.join("namespace")), "default");
    assert_eq!(read(access.join("token")).split('.').count(), 3);
    assert_eq!(mode(access.join("token")), 0o644);
    assert_eq!(mode(bed.volume("uid-1", "empty-dir", "data")), 0o777);
    assert_eq!(mode(bed.pod_dir("uid-1")), 0o750);

    for _ in 0..3 {
        bed.manager.mount(&pod).await.unwrap();
    }
    assert_eq!(bed.issuer.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn look_ups_run_side_by_side() {
    let second = Duration::from_secs(1);
    let objects = FakeObjects::slow(second);
    objects.set_secret("s", &[("a", "1")]);
    let bed = Bed::with(objects, FakeIssuer { delay: second, ..Default::default() });
    let volumes = json!([kube_api_access(), { "name": "s", "secret": { "secretName": "s" } }]);
    let start = Instant::now();
    bed.manager.mount(&pod("uid-1", volumes, json!({}))).await.unwrap();
    assert_eq!(start.elapsed(), second);
}

#[tokio::test]
async fn a_mount_that_changes_nothing_does_not_touch_the_disk() {
    let bed = Bed::new();
    let pod = ordinary_pod("uid-1");
    bed.manager.mount(&pod).await.unwrap();
    fs::remove_dir_all(bed.pod_dir("uid-1")).unwrap();
    bed.manager.mount(&pod).await.unwrap();
    assert!(!bed.pod_dir("uid-1").exists());
}

#[tokio::test]
async fn follows_changes_of_objects_and_labels() {
    let bed = Bed::new();
    bed.objects.set_config_map("settings", &[("a", "1"), ("gone", "")]);
    bed.objects.set_secret("key", &[("k", "1")]);
    let volumes = || {
        json!([
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "key", "secret": { "secretName": "key", "defaultMode": 0o400 } },
            { "name": "info", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                { "path": "deep/cpu", "resourceFieldRef": { "containerName": "main", "resource": "limits.cpu" } },
            ] } },
        ])
    };
    let first = pod("uid-1", volumes(), json!({}));
    bed.manager.mount(&first).await.unwrap();
    let settings = bed.volume("uid-1", "configmap", "settings");
    let key = bed.volume("uid-1", "secret", "key");
    let info = bed.volume("uid-1", "downward-api", "info");
    assert_eq!((read(settings.join("a")), read(key.join("k"))), ("1".into(), "1".into()));
    assert_eq!(mode(key.join("k")), 0o400);
    assert_eq!((read(info.join("labels")), read(info.join("deep/cpu"))), ("app=\"web\"".into(), "4".into()));

    bed.objects.set_config_map("settings", &[("a", "2"), ("new", "")]);
    bed.objects.set_secret("key", &[("k", "2")]);
    let second = pod("uid-1", volumes(), json!({ "metadata": { "labels": { "app": "shop" } } }));
    bed.manager.mount(&second).await.unwrap();
    assert_eq!((read(settings.join("a")), read(key.join("k"))), ("2".into(), "2".into()));
    assert!(settings.join("new").exists() && fs::symlink_metadata(settings.join("gone")).is_err());
    assert_eq!(read(info.join("labels")), "app=\"shop\"");
}

#[tokio::test]
async fn objects_without_a_version_are_compared_by_their_content() {
    let bed = Bed::new();
    bed.objects.set_unversioned_config_map("local", &[("a", "1")]);
    let pod = pod("uid-1", json!([{ "name": "c", "configMap": { "name": "local" } }]), json!({}));
    let volume = bed.volume("uid-1", "configmap", "c");
    bed.manager.mount(&pod).await.unwrap();
    assert_eq!(fs::read(volume.join("binary")).unwrap(), [0, 159, 146, 150]);
    let data = fs::read_link(volume.join("..data")).unwrap();
    bed.manager.mount(&pod).await.unwrap();
    assert_eq!(fs::read_link(volume.join("..data")).unwrap(), data);
    bed.objects.set_unversioned_config_map("local", &[("a", "2")]);
    bed.manager.mount(&pod).await.unwrap();
    assert_eq!(read(volume.join("a")), "2");
}

#[tokio::test]
async fn takes_the_items_that_are_asked_for() {
    // Source, the files with their modes, or the class and a part of the error.
    type Expected = Result<&'static [(&'static str, u32)], (bool, &'static str)>;
    let item = |key: &str, path: &str| json!({ "key": key, "path": path });
    let table: Vec<(Value, Expected)> = vec![
        (json!({ "name": "c" }), Ok(&[("a", 0o644), ("b", 0o644)])),
        (json!({ "name": "c", "defaultMode": 0o600 }), Ok(&[("a", 0o600), ("b", 0o600)])),
        (json!({ "name": "c", "items": [item("a", "x/y")] }), Ok(&[("x/y", 0o644)])),
        (
            json!({ "name": "c", "defaultMode": 0o600, "items": [
                { "key": "a", "path": "one", "mode": 0o777 }, item("a", "two") ] }),
            Ok(&[("one", 0o777), ("two", 0o600)]),
        ),
        (json!({ "name": "c", "items": [item("z", "z")] }), Err((false, "configMap \"c\" has no key \"z\""))),
        (
            json!({ "name": "c", "optional": true, "items": [item("z", "z"), item("a", "a")] }),
            Ok(&[("a", 0o644)]),
        ),
        (json!({ "name": "none" }), Err((false, "configmap \"none\" not found"))),
        (json!({ "name": "none", "optional": false }), Err((false, "configmap \"none\" not found"))),
        (json!({ "name": "none", "optional": true }), Ok(&[])),
        (json!({ "name": "none", "optional": true, "items": [item("a", "a")] }), Ok(&[])),
        (json!({ "name": "c", "items": [item("a", "../a")] }), Err((true, "must not start with '..'"))),
        (json!({ "name": "c", "items": [item("a", "/a")] }), Err((true, "must be relative"))),
        (json!({ "name": "c", "defaultMode": 0o10000 }), Err((true, "is not between 0 and 0777"))),
    ];
    for (at, (source, expected)) in table.into_iter().enumerate() {
        let bed = Bed::new();
        bed.objects.set_config_map("c", &[("a", "A"), ("b", "B")]);
        bed.objects.set_secret("c", &[("a", "A"), ("b", "B")]);
        let mut secret = source.clone();
        let name = secret.as_object_mut().unwrap().remove("name").unwrap();
        secret["secretName"] = name;
        for (plugin, volume) in
            [("configmap", json!({ "configMap": source })), ("secret", json!({ "secret": secret }))]
        {
            let mut volume = volume;
            volume["name"] = "v".into();
            let uid = format!("{plugin}-{at}");
            let result = bed.manager.mount(&pod(&uid, json!([volume]), json!({}))).await;
            let dir = bed.volume(&uid, plugin, "v");
            match expected {
                Ok(files) => {
                    result.unwrap();
                    assert_eq!(
                        files_in(&dir),
                        files.iter().map(|(p, m)| ((*p).into(), *m)).collect::<Vec<_>>()
                    );
                }
                Err((invalid, message)) => {
                    let error = result.unwrap_err();
                    assert_eq!(matches!(error, VolumeError::Invalid(_)), invalid, "{error}");
                    let message = match plugin {
                        "secret" => message.replace("configMap", "secret").replace("configmap", "secret"),
                        _ => message.to_owned(),
                    };
                    assert!(error.to_string().contains(&message), "{error}");
                    assert!(error.to_string().contains("volume \"v\""), "{error}");
                }
            }
        }
    }
}

/// All files that a volume shows, with their modes.
fn files_in(dir: &Path) -> Vec<(String, u32)> {
    let mut files = Vec::new();
    for name in list(dir).into_iter().filter(|name| !name.starts_with("..")) {
        let path = dir.join(&name);
        if path.is_dir() {
            files.extend(files_in(&path).into_iter().map(|(below, mode)| (format!("{name}/{below}"), mode)));
        } else {
            files.push((name, mode(&path)));
        }
    }
    files
}

#[tokio::test]
async fn sources_of_a_projected_volume_are_laid_over_each_other() {
    let bed = Bed::new();
    bed.objects.set_config_map("c", &[("a", "from c"), ("b", "from c")]);
    bed.objects.set_secret("s", &[("b", "from s"), ("d", "from s")]);
    let volume = json!({ "name": "v", "projected": { "defaultMode": 0o640, "sources": [
        { "configMap": { "name": "c" } },
        { "secret": { "name": "s" } },
        { "secret": { "name": "none", "optional": true } },
        { "downwardAPI": { "items": [
            { "path": "uid", "mode": 0o400, "fieldRef": { "fieldPath": "metadata.uid" } } ] } },
    ] } });
    bed.manager.mount(&pod("uid-1", json!([volume]), json!({}))).await.unwrap();
    let dir = bed.volume("uid-1", "projected", "v");
    assert_eq!(
        files_in(&dir),
        [("a".into(), 0o640), ("b".into(), 0o640), ("d".into(), 0o640), ("uid".into(), 0o400)]
    );
    let content = ["a", "b", "d", "uid"].map(|name| read(dir.join(name)));
    assert_eq!(content, ["from c", "from s", "from s", "uid-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_one_volume_does_not_hold_up_another() {
    let bed = Bed::new();
    bed.objects.set_config_map("c", &[("a", "1")]);
    let volumes = json!([{ "name": "c", "configMap": { "name": "c" } }, kube_api_access()]);
    let pod = pod("uid-1", volumes, json!({}));
    bed.manager.mount(&pod).await.unwrap();
    let token = bed.volume("uid-1", "projected", "kube-api-access").join("token");
    let first = read(&token);

    bed.objects.remove_config_map("c");
    advance(Duration::from_secs(3000)).await;
    let error = bed.manager.mount(&pod).await.unwrap_err();
    assert!(
        matches!(&error, VolumeError::NotReady(m) if m == "MountVolume.SetUp failed for volume \"c\" : configmap \"c\" not found"),
        "{error}"
    );
    assert_ne!(read(&token), first, "the token was not renewed");
    assert_eq!(read(bed.volume("uid-1", "configmap", "c").join("a")), "1");
}

#[tokio::test(start_paused = true)]
async fn reports_all_that_is_missing_and_no_secrets() {
    let bed = Bed::new();
    bed.objects.remove_config_map("kube-root-ca.crt");
    bed.issuer.fail(ApiError::Forbidden("no".into()));
    let volumes = json!([kube_api_access(), { "name": "s", "secret": { "secretName": "absent" } }]);
    let error = bed.manager.mount(&pod("uid-1", volumes, json!({}))).await.unwrap_err();
    let VolumeError::NotReady(message) = &error else { panic!("{error}") };
    for part in [
        "service account \"builder\"",
        "configmap \"kube-root-ca.crt\" not found",
        "volume \"s\" : secret \"absent\" not found",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains('\n'));
    assert!(bed.manager.known_pods().await.unwrap().is_empty());
}

#[tokio::test]
async fn volumes_that_nobody_mounts_are_not_set_up() {
    let bed = Bed::new();
    let more = json!({ "spec": { "containers": [{ "name": "main", "volumeMounts": [
        { "name": "used", "mountPath": "/used" } ] }] } });
    let volumes =
        json!([{ "name": "used", "emptyDir": {} }, { "name": "unused", "configMap": { "name": "none" } }]);
    bed.manager.mount(&pod("uid-1", volumes, more)).await.unwrap();
    assert_eq!(list(bed.pod_dir("uid-1").join("volumes")), ["kubernetes.io~empty-dir"]);

    bed.manager.mount(&pod("uid-2", json!([]), json!({}))).await.unwrap();
    assert_eq!(bed.manager.known_pods().await.unwrap(), ["uid-1"]);
}

#[tokio::test]
async fn a_volume_has_room_for_mounts_in_it() {
    let bed = Bed::new();
    bed.objects.set_config_map("c", &[("a", "1")]);
    let more = json!({ "spec": { "containers": [{ "name": "main", "volumeMounts": [
        { "name": "c", "mountPath": "/etc/app" }, { "name": "d", "mountPath": "/etc/app/deep/data" } ] }] } });
    let volumes = json!([{ "name": "c", "configMap": { "name": "c" } }, { "name": "d", "emptyDir": {} }]);
    bed.manager.mount(&pod("uid-1", volumes, more)).await.unwrap();
    let dir = bed.volume("uid-1", "configmap", "c");
    assert!(dir.join("deep/data").is_dir());
    assert_eq!(read(dir.join("a")), "1");
}

#[tokio::test(start_paused = true)]
async fn a_restart_asks_for_no_token_that_is_still_fresh() {
    for extends in [false, true] {
        let mut bed = Bed::with(FakeObjects::default(), FakeIssuer { extends, ..Default::default() });
        let pod = ordinary_pod("uid-1");
        bed.manager.mount(&pod).await.unwrap();
        let access = bed.volume("uid-1", "projected", "kube-api-access");
        let before = (read(access.join("token")), fs::read_link(access.join("..data")).unwrap());

        bed.restart();
        assert_eq!(bed.manager.known_pods().await.unwrap(), ["uid-1"]);
        bed.manager.mount(&pod).await.unwrap();
        assert_eq!(bed.issuer.count(), 1);
        assert_eq!((read(access.join("token")), fs::read_link(access.join("..data")).unwrap()), before);

        // It is renewed at the same time as without the restart.
        advance(Duration::from_secs(2870)).await;
        bed.manager.mount(&pod).await.unwrap();
        assert_eq!(bed.issuer.count(), 1);
        advance(Duration::from_secs(20)).await;
        bed.manager.mount(&pod).await.unwrap();
        assert_eq!(bed.issuer.count(), 2);
        assert_ne!(read(access.join("token")), before.0);

        bed.restart();
        advance(Duration::from_secs(3600)).await;
        bed.manager.mount(&pod).await.unwrap();
        assert_eq!(bed.issuer.count(), 3);
    }
}

#[tokio::test]
async fn a_pod_that_is_gone_leaves_nothing() {
    let mut bed = Bed::new();
    for uid in ["uid-1", "uid-2"] {
        bed.manager.mount(&ordinary_pod(uid)).await.unwrap();
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("precious"), "").unwrap();
    fs::create_dir_all(bed.pod_dir("uid-1").join("containers/main")).unwrap();
    fs::write(bed.pod_dir("uid-1").join("etc-hosts"), "").unwrap();
    std::os::unix::fs::symlink(host.path(), bed.volume("uid-1", "empty-dir", "data").join("out")).unwrap();

    bed.manager.unmount("uid-1").await.unwrap();
    assert!(!bed.pod_dir("uid-1").exists());
    assert!(host.path().join("precious").exists());
    bed.manager.unmount("uid-1").await.unwrap();
    assert_eq!(bed.manager.known_pods().await.unwrap(), ["uid-2"]);

    // Orphans of an earlier run, too.
    bed.restart();
    assert_eq!(bed.manager.known_pods().await.unwrap(), ["uid-2"]);
    bed.manager.unmount("uid-2").await.unwrap();
    assert!(bed.manager.known_pods().await.unwrap().is_empty());

    // A pod of the same UID starts afresh.
    bed.manager.mount(&ordinary_pod("uid-2")).await.unwrap();
    assert_eq!(bed.issuer.count(), 3);
    assert!(bed.volume("uid-2", "empty-dir", "data").is_dir());
}

#[tokio::test]
async fn a_host_path_survives_its_pod() {
    let bed = Bed::new();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().join("made");
    let volumes =
        json!([{ "name": "h", "hostPath": { "path": path.to_str().unwrap(), "type": "DirectoryOrCreate" } }]);
    bed.manager.mount(&pod("uid-1", volumes, json!({}))).await.unwrap();
    fs::write(path.join("file"), "").unwrap();
    bed.manager.unmount("uid-1").await.unwrap();
    assert!(path.join("file").exists());
}

#[tokio::test]
async fn a_call_that_is_dropped_finishes_on_disk() {
    let bed = Bed::new();
    let pod = ordinary_pod("uid-1");
    for _ in 0..50 {
        // Dropped at its first wait, which can be any: for a look-up, or for the disk.
        tokio::select! {
            biased;
            _ = bed.manager.mount(&pod) => {}
            () = tokio::task::yield_now() => {}
        }
        bed.manager.unmount("uid-1").await.unwrap();
        assert!(!bed.pod_dir("uid-1").exists());
    }
    bed.manager.mount(&pod).await.unwrap();
    assert_eq!(read(bed.volume("uid-1", "projected", "kube-api-access").join("namespace")), "default");
}

#[test]
fn an_ordinary_user_serves_pods_too() {
    as_ordinary_user(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = Bed::new();
            let users = json!({ "spec": { "securityContext": { "runAsUser": 1000, "fsGroup": 2000 } } });
            let pod_with_users =
                pod("uid-1", json!([{ "name": "data", "emptyDir": {} }, kube_api_access()]), users);
            bed.manager.check(&pod_with_users).unwrap();
            bed.manager.mount(&pod_with_users).await.unwrap();
            let token = bed.volume("uid-1", "projected", "kube-api-access").join("token");
            assert_eq!(mode(&token), 0o600);
            assert!(read(&token).contains('.'));
            let memory =
                pod("uid-2", json!([{ "name": "m", "emptyDir": { "medium": "Memory" } }]), json!({}));
            assert!(
                bed.manager.check(&memory).unwrap_err().contains("volume \"m\": emptyDir with medium Memory")
            );
            bed.manager.unmount("uid-1").await.unwrap();
            assert!(bed.manager.known_pods().await.unwrap().is_empty());
        });
    });
}

#[tokio::test]
async fn volumes_are_measured_and_those_of_the_node_are_not() {
    let bed = Bed::new();
    bed.objects.set_config_map("settings", &[("a", &"x".repeat(10_000))]);
    let mut volumes = json!([
        { "name": "data", "emptyDir": {} },
        { "name": "settings", "configMap": { "name": "settings" } },
        { "name": "info", "downwardAPI": { "items": [
            { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
        ] } },
        { "name": "node", "hostPath": { "path": "/usr" } },
    ]);
    let as_root = is_root("tmpfs");
    if as_root {
        let memory = json!({ "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } });
        volumes.as_array_mut().unwrap().push(memory);
    }
    let pod = pod("uid-1", volumes, json!({}));
    assert!(bed.manager.usage(&pod).await.is_empty(), "nothing is there yet");
    bed.manager.mount(&pod).await.unwrap();
    fs::write(bed.volume("uid-1", "empty-dir", "data").join("file"), vec![1; 1 << 20]).unwrap();
    if as_root {
        fs::write(bed.volume("uid-1", "empty-dir", "memory").join("file"), vec![1; 1 << 18]).unwrap();
    }
    let measured = bed.manager.usage(&pod).await;
    let of = |name: &str| measured.iter().find(|usage| usage.volume == name);
    let data = of("data").unwrap();
    assert!((1 << 20..2 << 20).contains(&data.used_bytes) && data.inodes_used == 2, "{data:?}");
    let disk = data.file_system;
    assert!(disk.capacity_bytes >= disk.available_bytes && disk.available_bytes > 0, "{disk:?}");
    let settings = of("settings").unwrap();
    assert!((10_000..1 << 20).contains(&settings.used_bytes), "{settings:?}");
    let ephemeral = ["data", "settings", "info"].map(|name| of(name).unwrap().is_ephemeral);
    assert_eq!(ephemeral, [true, true, false]);
    assert!(of("node").is_none());
    if as_root {
        let memory = of("memory").unwrap();
        assert_eq!((memory.used_bytes, memory.is_ephemeral), (1 << 18, false));
        assert_eq!(memory.file_system.capacity_bytes, 1 << 20);
        bed.manager.unmount("uid-1").await.unwrap();
    }
}
