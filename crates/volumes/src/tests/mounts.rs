//! What containers see of volumes.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use coracle_core::ports::{VolumeError, Volumes};
use coracle_provider::{EnvVar, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::support::{Bed, list, mode, pod, read};

fn container(mounts: Value) -> Container {
    serde_json::from_value(json!({ "name": "main", "volumeMounts": mounts })).unwrap()
}

fn env(variables: &[(&str, &str)]) -> Vec<EnvVar> {
    variables.iter().map(|(name, value)| EnvVar { name: (*name).into(), value: (*value).into() }).collect()
}

/// A pod with a volume of each sort, mounted.
async fn mounted(bed: &Bed) -> Arc<Pod> {
    bed.objects.set_config_map("c", &[("app.conf", "settings")]);
    let host = bed.root.path().parent().unwrap().join("srv");
    let volumes = json!([
        { "name": "data", "emptyDir": {} },
        { "name": "config", "configMap": { "name": "c" } },
        { "name": "host", "hostPath": { "path": host.to_str().unwrap() } },
    ]);
    let pod = pod("uid-1", volumes, json!({}));
    bed.manager.mount(&pod).await.unwrap();
    pod
}

/// The root directory is one level down, so that there is a place beside it.
fn bed() -> (Bed, tempfile::TempDir) {
    let outer = tempfile::tempdir().unwrap();
    let mut bed = Bed::new();
    bed.root = tempfile::tempdir_in(outer.path()).unwrap();
    bed.restart();
    (bed, outer)
}

async fn resolve(
    bed: &Bed,
    pod: &Pod,
    mount: Value,
    variables: &[(&str, &str)],
) -> Result<Mount, VolumeError> {
    let mounts = bed.manager.container_mounts(pod, &container(json!([mount])), &env(variables)).await?;
    assert_eq!(mounts.len(), 1);
    Ok(mounts.into_iter().next().unwrap())
}

#[tokio::test]
async fn volumes_become_paths() {
    let (bed, outer) = bed();
    let pod = mounted(&bed).await;
    let mounts = json!([
        { "name": "data", "mountPath": "/data" },
        { "name": "data", "mountPath": "cache", "readOnly": true, "subPath": "cache/v1" },
        { "name": "config", "mountPath": "/etc/app", "readOnly": false },
        { "name": "host", "mountPath": "/srv" },
        { "name": "host", "mountPath": "/srv/logs", "readOnly": true, "subPathExpr": "$(POD)/logs" },
    ]);
    let real = fs::canonicalize(bed.root.path()).unwrap().join("pods/uid-1/volumes");
    let srv = fs::canonicalize(outer.path()).unwrap().join("srv");
    let expected = [
        ("/data", real.join("kubernetes.io~empty-dir/data"), false),
        ("/cache", real.join("kubernetes.io~empty-dir/data/cache/v1"), true),
        ("/etc/app", real.join("kubernetes.io~configmap/config"), true),
        ("/srv", srv.clone(), false),
        ("/srv/logs", srv.join("web-1/logs"), true),
    ];
    let found =
        bed.manager.container_mounts(&pod, &container(mounts), &env(&[("POD", "web-1")])).await.unwrap();
    assert_eq!(found.len(), expected.len());
    for (mount, (container_path, host_path, read_only)) in found.into_iter().zip(expected) {
        let of_node = host_path.starts_with(&srv);
        assert_eq!(
            mount,
            Mount {
                container_path: container_path.into(),
                host_path,
                read_only,
                of_node,
                ..Mount::default()
            }
        );
        assert!(mount.host_path.is_dir(), "{}", mount.host_path.display());
    }
    assert_eq!(mode(bed.volume("uid-1", "empty-dir", "data").join("cache/v1")), 0o777);
    assert!(bed.manager.container_mounts(&pod, &Container::default(), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_sub_path_of_one_file_is_the_file_itself() {
    let (bed, _outer) = bed();
    let pod = mounted(&bed).await;
    let mount = json!({ "name": "config", "mountPath": "/etc/app.conf", "subPath": "app.conf" });
    let first = resolve(&bed, &pod, mount.clone(), &[]).await.unwrap().host_path;
    assert_eq!(read(&first), "settings");
    assert_eq!(fs::canonicalize(&first).unwrap(), first);

    // A container that starts after a change gets the new one.
    bed.objects.set_config_map("c", &[("app.conf", "changed")]);
    bed.manager.mount(&pod).await.unwrap();
    assert_eq!(read(resolve(&bed, &pod, mount, &[]).await.unwrap().host_path), "changed");
}

#[tokio::test]
async fn sub_path_expressions_need_all_their_variables() {
    let (bed, _outer) = bed();
    let pod = mounted(&bed).await;
    let variables = [("A", "a"), ("B", "b/c"), ("EMPTY", ""), ("UP", ".."), ("ROOT", "/etc")];
    // The path below the volume; or whether it can never be, and a part of the message.
    let table = [
        ("$(A)", Ok("a")),
        ("$(A)/$(B)-$$(A)", Ok("a/b/c-$(A)")),
        ("plain", Ok("plain")),
        ("$(X)/$(EMPTY)/$(X)", Err((false, "missing value for EMPTY, X"))),
        ("$(UP)", Err((true, "must not contain '..'"))),
        ("a/$(UP)/b", Err((true, "must not contain '..'"))),
        ("$(ROOT)", Err((true, "must not be an absolute path"))),
    ];
    for (expression, expected) in table {
        let mount = json!({ "name": "data", "mountPath": "/data", "subPathExpr": expression });
        let found = resolve(&bed, &pod, mount, &variables).await;
        match expected {
            Ok(path) => {
                let volume = fs::canonicalize(bed.volume("uid-1", "empty-dir", "data")).unwrap();
                assert_eq!(found.unwrap().host_path, volume.join(path));
            }
            Err((invalid, message)) => {
                let error = found.unwrap_err();
                assert_eq!(matches!(error, VolumeError::Invalid(_)), invalid, "{error}");
                assert!(error.to_string().contains(message), "{error}");
            }
        }
    }
    assert_eq!(list(bed.volume("uid-1", "empty-dir", "data")), ["a", "plain"]);
}

#[tokio::test]
async fn links_of_containers_do_not_lead_out() {
    let (bed, outer) = bed();
    let pod = mounted(&bed).await;
    let data = bed.volume("uid-1", "empty-dir", "data");
    symlink(outer.path(), data.join("out")).unwrap();
    symlink("../../../../..", data.join("up")).unwrap();
    for sub_path in ["out", "out/srv", "up", "up/pods", "out/made"] {
        let mount = json!({ "name": "data", "mountPath": "/data", "subPath": sub_path });
        let error = resolve(&bed, &pod, mount, &[]).await.unwrap_err();
        assert!(
            matches!(&error, VolumeError::Invalid(m) if m.contains("leads out of the volume")),
            "{error}"
        );
    }
    assert!(!outer.path().join("made").exists());

    // A host path that turned into a link to the root directory after it was set up.
    let srv = outer.path().join("srv");
    fs::remove_dir(&srv).unwrap();
    symlink(bed.root.path(), &srv).unwrap();
    let error = resolve(&bed, &pod, json!({ "name": "host", "mountPath": "/srv" }), &[]).await.unwrap_err();
    assert!(matches!(&error, VolumeError::Invalid(m) if m.contains("the kubelet's own state")), "{error}");
}

#[tokio::test]
async fn refuses_what_cannot_be_mounted() {
    let (bed, _outer) = bed();
    let pod = mounted(&bed).await;
    let table = [
        (json!({ "name": "other", "mountPath": "/x" }), "volume \"other\": the pod has no such volume"),
        (json!({ "name": "data", "mountPath": "/x", "subPath": "/etc" }), "must not be an absolute path"),
        (json!({ "name": "data", "mountPath": "/x", "subPath": "a/../.." }), "must not contain '..'"),
        (
            json!({ "name": "data", "mountPath": "/x", "mountPropagation": "Bidirectional" }),
            "mountPropagation",
        ),
        (json!({ "name": "data", "mountPath": "/x", "recursiveReadOnly": "Enabled" }), "recursiveReadOnly"),
    ];
    for (mount, message) in table {
        let error = resolve(&bed, &pod, mount, &[]).await.unwrap_err();
        assert!(matches!(&error, VolumeError::Invalid(m) if m.contains(message)), "{error}");
    }
    bed.manager.unmount("uid-1").await.unwrap();
    let error = resolve(&bed, &pod, json!({ "name": "data", "mountPath": "/x" }), &[]).await.unwrap_err();
    assert!(matches!(&error, VolumeError::NotReady(m) if m.contains("not set up")), "{error}");
}
