//! What is refused, and that it is refused by name.

use std::fs;
use std::sync::Arc;

use coracle_core::ports::{VolumeError, Volumes};
use serde_json::{Value, json};

use super::support::{Bed, FakeObjects, kube_api_access, pod};
use crate::{Options, VolumeManager};

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let projected = |source: Value| json!({ "projected": { "sources": [source] } });
    let table = [
        (json!({ "persistentVolumeClaim": { "claimName": "c" } }), "kind persistentVolumeClaim"),
        (json!({ "csi": { "driver": "d" } }), "kind csi"),
        (json!({ "nfs": { "server": "s", "path": "/" } }), "kind nfs"),
        (json!({ "ephemeral": {} }), "kind ephemeral"),
        (json!({ "image": { "reference": "r" } }), "kind image"),
        (json!({ "iscsi": { "targetPortal": "t", "iqn": "i", "lun": 0 } }), "kind iscsi"),
        (json!({ "gitRepo": { "repository": "r" } }), "kind gitRepo"),
        (json!({ "emptyDir": { "medium": "HugePages" } }), "medium HugePages"),
        (json!({ "emptyDir": { "medium": "HugePages-2Mi" } }), "medium HugePages-2Mi"),
        (projected(json!({ "clusterTrustBundle": { "path": "p" } })), "kind clusterTrustBundle"),
        (
            projected(json!({ "podCertificate": { "keyType": "k", "signerName": "s" } })),
            "kind podCertificate",
        ),
    ];
    let bed = Bed::new();
    for (mut volume, kind) in table {
        volume["name"] = "v".into();
        let pod = pod("uid-1", json!([{ "name": "ok", "emptyDir": {} }, volume]), json!({}));
        let message = bed.manager.check(&pod).unwrap_err();
        assert!(message.starts_with("volume \"v\": ") && message.contains(kind), "{message}");
        assert!(message.contains("not supported"), "{message}");
        assert!(matches!(bed.manager.mount(&pod).await, Err(VolumeError::Invalid(_))));
    }
    // No kind at all is an emptyDir.
    bed.manager.check(&pod("uid-1", json!([{ "name": "v" }]), json!({}))).unwrap();
}

#[tokio::test]
async fn mounts_that_are_not_supported_are_refused_by_name() {
    let table = [
        (json!({ "mountPropagation": "Bidirectional" }), Some("mountPropagation Bidirectional")),
        (json!({ "mountPropagation": "HostToContainer" }), Some("mountPropagation HostToContainer")),
        (json!({ "recursiveReadOnly": "Enabled" }), Some("recursiveReadOnly Enabled")),
        (json!({ "bindMountOptions": ["noexec"] }), Some("bindMountOptions")),
        (
            json!({ "mountPropagation": "None", "recursiveReadOnly": "IfPossible", "bindMountOptions": [] }),
            None,
        ),
        (json!({ "recursiveReadOnly": "Disabled" }), None),
    ];
    let bed = Bed::new();
    for (mut mount, refused) in table {
        mount["name"] = "v".into();
        mount["mountPath"] = "/v".into();
        let ephemeral = json!({ "name": "debug", "volumeMounts": [mount] });
        let more = json!({ "spec": { "ephemeralContainers": [ephemeral] } });
        let result = bed.manager.check(&pod("uid-1", json!([{ "name": "v", "emptyDir": {} }]), more));
        match refused {
            Some(what) => {
                assert_eq!(
                    result.unwrap_err(),
                    format!("container \"debug\": mount \"v\": {what} is not supported")
                );
            }
            None => result.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_node_can_do_without_host_paths_and_tokens() {
    let root = tempfile::tempdir().unwrap();
    let options = Options {
        root_dir: root.path().to_owned(),
        allow_host_path: false,
        node_allocatable: Box::new(Default::default),
    };
    let manager = VolumeManager::new(options, Arc::new(FakeObjects::default()), None).unwrap();
    let host_path = pod("uid-1", json!([{ "name": "v", "hostPath": { "path": "/srv" } }]), json!({}));
    assert_eq!(manager.check(&host_path).unwrap_err(), "volume \"v\": hostPath is not allowed on this node");
    assert!(matches!(manager.mount(&host_path).await, Err(VolumeError::Invalid(_))));
    let token = pod("uid-1", json!([kube_api_access()]), json!({}));
    assert!(manager.check(&token).unwrap_err().contains("serviceAccountToken needs an apiserver"));
    assert!(matches!(manager.mount(&token).await, Err(VolumeError::Invalid(_))));
}

#[tokio::test]
async fn names_that_would_leave_the_root_directory_are_refused() {
    let bed = Bed::new();
    fs::create_dir(bed.root.path().join("precious")).unwrap();
    for uid in ["", ".", "..", "../precious", "/precious", "a/b", "a\0b"] {
        assert!(matches!(bed.manager.unmount(uid).await, Err(VolumeError::Invalid(_))), "{uid:?}");
        let mount =
            bed.manager.mount(&pod(uid, json!([{ "name": "data", "emptyDir": {} }]), json!({}))).await;
        assert!(matches!(mount, Err(VolumeError::Invalid(_))), "{uid:?}");
    }
    assert!(bed.root.path().join("precious").exists());
    let pod = pod("uid-1", json!([{ "name": "../../x", "emptyDir": {} }]), json!({}));
    assert!(bed.manager.check(&pod).unwrap_err().contains("cannot be the name of a directory"));
    assert!(matches!(bed.manager.mount(&pod).await, Err(VolumeError::Invalid(_))));
}
