//! Users and groups of files (`fsGroup`, `runAsUser`).

use std::fs;

use coracle_core::ports::{VolumeError, Volumes};
use serde_json::{Value, json};

use super::support::{Bed, is_root, kube_api_access, mode, owner, pod};
use crate::pod::Owner;

/// Security contexts of the pod and of its containers.
fn contexts(pod_context: Value, containers: &[Value]) -> Value {
    let containers: Vec<_> = containers
        .iter()
        .map(|context| {
            let mounts = json!([
                { "name": "kube-api-access", "mountPath": "/a" },
                { "name": "data", "mountPath": "/b" },
                { "name": "config", "mountPath": "/c" },
            ]);
            json!({ "name": "c", "securityContext": context, "volumeMounts": mounts })
        })
        .collect();
    json!({ "spec": { "securityContext": pod_context, "containers": containers } })
}

#[test]
fn the_user_is_known_if_all_containers_have_the_same() {
    let user = |id: i64| json!({ "runAsUser": id });
    let none = || json!({});
    let table = [
        (none(), vec![none()], None),
        (none(), vec![], None),
        (user(1000), vec![none()], Some(1000)),
        (user(1000), vec![none(), none()], Some(1000)),
        (none(), vec![user(1000)], Some(1000)),
        (none(), vec![user(1000), none()], None),
        (none(), vec![user(1000), user(1001)], None),
        (user(1000), vec![user(1001), none()], None),
        (user(1000), vec![user(1001), user(1001)], Some(1001)),
        (user(0), vec![none()], Some(0)),
    ];
    for (pod_context, containers, expected) in table {
        let pod = pod("uid", json!([]), contexts(pod_context, &containers));
        assert_eq!(Owner::of(&pod).unwrap().fs_user, expected, "{:?}", pod.spec);
    }
    for context in [json!({ "fsGroup": -1 }), json!({ "fsGroup": 4294967295_i64 }), user(1 << 40)] {
        let pod = pod("uid", json!([]), contexts(context, &[none()]));
        assert!(matches!(Owner::of(&pod), Err(VolumeError::Invalid(_))));
    }
}

#[tokio::test]
async fn files_belong_to_those_who_need_them() {
    if !is_root("files of other users") {
        return;
    }
    // Contexts; then mode and owner of the token, of a file of a configMap, of its directory, and of an emptyDir.
    type Seen = (u32, (u32, u32));
    let table: [(Value, [Seen; 4]); 4] = [
        (json!({}), [(0o644, (0, 0)), (0o640, (0, 0)), (0o777, (0, 0)), (0o777, (0, 0))]),
        (
            json!({ "runAsUser": 1000 }),
            [(0o600, (1000, 0)), (0o640, (0, 0)), (0o777, (0, 0)), (0o777, (0, 0))],
        ),
        (
            json!({ "fsGroup": 2000 }),
            [(0o640, (0, 2000)), (0o640, (0, 2000)), (0o2777, (0, 2000)), (0o2777, (0, 2000))],
        ),
        (
            json!({ "runAsUser": 1000, "fsGroup": 2000 }),
            [(0o640, (1000, 2000)), (0o640, (0, 2000)), (0o2777, (0, 2000)), (0o2777, (0, 2000))],
        ),
    ];
    for (context, expected) in table {
        let bed = Bed::new();
        bed.objects.set_config_map("c", &[("a", "1")]);
        let volumes = json!([
            kube_api_access(),
            { "name": "data", "emptyDir": {} },
            { "name": "config", "configMap": { "name": "c", "defaultMode": 0o640 } },
        ]);
        let pod = pod("uid-1", volumes, contexts(context.clone(), &[json!({})]));
        bed.manager.mount(&pod).await.unwrap();
        let config = bed.volume("uid-1", "configmap", "config");
        let paths = [
            bed.volume("uid-1", "projected", "kube-api-access").join("token"),
            config.join("a"),
            config.clone(),
            bed.volume("uid-1", "empty-dir", "data"),
        ];
        let seen = paths.map(|path| (mode(&path), owner(&path)));
        assert_eq!(seen, expected, "{context}");
        let link = fs::symlink_metadata(config.join("a")).unwrap();
        let group = u32::try_from(context["fsGroup"].as_i64().unwrap_or(0)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&link), group);
        assert_eq!(mode(config.join("..data")), if group == 0 { 0o755 } else { 0o2755 });
    }
}

#[tokio::test]
async fn files_can_name_their_own_users() {
    if !is_root("files of other users") {
        return;
    }
    let bed = Bed::new();
    bed.objects.set_config_map("c", &[("a", "1"), ("b", "2")]);
    let volumes = json!([{ "name": "v", "projected": { "defaultUser": 10, "sources": [
        { "configMap": { "name": "c", "items": [
            { "key": "a", "path": "a" }, { "key": "b", "path": "dir/b", "user": 20 } ] } },
        { "serviceAccountToken": { "path": "token", "user": 30 } },
    ] } }]);
    bed.manager.mount(&pod("uid-1", volumes, json!({}))).await.unwrap();
    let dir = bed.volume("uid-1", "projected", "v");
    let owners = ["a", "dir/b", "token"].map(|path| owner(dir.join(path)).0);
    assert_eq!(owners, [10, 20, 30]);
    assert_eq!(mode(dir.join("token")), 0o600);
}
