//! Upstream's tables of `common_test.go`, and of `HasAPIObjectReference`.

use serde_json::json;

use super::*;

const URL: ManifestOrigin<'static> = ManifestOrigin::Url("http://example.com/pods");

fn file() -> ManifestOrigin<'static> {
    ManifestOrigin::File(Path::new("/etc/manifests/web.yaml"))
}

fn manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", "image": "example.com/web:1"}]}});
    change(&mut pod);
    pod.to_string().into_bytes()
}

fn with_spec(field: &str, value: Value) -> Vec<u8> {
    manifest(|pod| pod["spec"][field] = value)
}

fn decoded(manifest: &[u8]) -> StaticPod {
    decode_static_pod(manifest, file(), "Node-1").unwrap()
}

fn error(manifest: &[u8]) -> String {
    decode_static_pod(manifest, file(), "node-1").unwrap_err().to_string()
}

#[test]
fn a_pod_of_a_file_is_complete() {
    let pod = decoded(&manifest(|_| ())).pod;
    assert_eq!((pod.name(), pod.namespace()), ("web-node-1", "default"));
    assert_eq!(pod.uid().len(), 32);
    assert_eq!(pod.annotation(CONFIG_HASH_ANNOTATION), Some(&*pod.uid()));
    assert_eq!(pod.phase(), "Pending");
    let spec = pod.pod_spec();
    assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    let toleration = &spec.tolerations.as_ref().unwrap()[0];
    assert_eq!(
        (toleration.operator.as_deref(), toleration.effect.as_deref()),
        (Some("Exists"), Some("NoExecute"))
    );
    assert_eq!(toleration.key, None);
}

#[test]
fn a_pod_of_a_url_is_evicted_as_others_are() {
    let pod = decode_static_pod(&manifest(|_| ()), URL, "node-1").unwrap().pod;
    assert_eq!(pod.pod_spec().tolerations, None);
}

#[test]
fn yaml_json_and_the_order_of_fields_make_no_difference() {
    let yaml = b"kind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - image: example.com/web:1\n    name: main\napiVersion: v1\n";
    assert_eq!(decoded(yaml).pod, decoded(&manifest(|_| ())).pod);
}

#[test]
fn another_manifest_place_or_node_is_another_pod() {
    let base = manifest(|_| ());
    let uid = |manifest: &[u8], origin, node| decode_static_pod(manifest, origin, node).unwrap().pod.uid();
    let first = uid(&base, file(), "node-1");
    assert_eq!(uid(&base, file(), "node-1"), first);
    assert_ne!(uid(&base, ManifestOrigin::File(Path::new("/other.yaml")), "node-1"), first);
    assert_ne!(uid(&base, file(), "node-2"), first);
    assert_ne!(uid(&with_spec("hostname", json!("h")), file(), "node-1"), first);
    // A URL is the same pod on every node, under another name.
    let url = ManifestOrigin::Url("http://example.com/");
    assert_eq!(uid(&base, url, "node-1"), uid(&base, url, "node-2"));
}

#[test]
fn a_given_uid_and_namespace_stay() {
    let pod =
        decoded(&manifest(|p| p["metadata"] = json!({"name": "web", "uid": "12345", "namespace": "ns"}))).pod;
    assert_eq!((&*pod.uid(), pod.namespace()), ("12345", "ns"));
    assert_eq!(pod.annotation(CONFIG_HASH_ANNOTATION), Some("12345"));
}

#[test]
fn the_hash_is_fnv_1a() {
    assert_eq!(format!("{:032x}", fnv1a_128(b"")), "6c62272e07bb014262b821756295c58d");
    assert_eq!(format!("{:032x}", fnv1a_128(b"a")), "d228cb696f1a8caf78912b704e4a8964");
}

#[test]
fn a_negative_grace_period_is_a_second() {
    let pod = decoded(&with_spec("terminationGracePeriodSeconds", json!(-1))).pod;
    assert_eq!(pod.pod_spec().termination_grace_period_seconds, Some(1));
}

#[test]
fn what_cannot_be_a_pod_is_told() {
    let cases: [(Vec<u8>, &str); 10] = [
        (b"".to_vec(), "it is empty"),
        (b"a: [".to_vec(), "not YAML"),
        (b"{".to_vec(), "not JSON"),
        (b"\xff".to_vec(), "not UTF-8"),
        (manifest(|p| p["apiVersion"] = json!("v1betta2")), "v1betta2"),
        (manifest(|p| p["kind"] = json!("Deployment")), "Deployment"),
        (manifest(|p| p["metadata"] = json!({})), "metadata.name"),
        (with_spec("containers", json!([{"name": "_INVALID_", "image": "i"}])), "_INVALID_"),
        (with_spec("volumes", json!([{"name": "repeated"}, {"name": "repeated"}])), "repeated"),
        (
            manifest(|p| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"})),
            "kubernetes.io/config.mirror",
        ),
    ];
    for (manifest, names) in cases {
        let error = error(&manifest);
        assert!(error.contains(names), "{error:?} should name {names:?}");
        assert!(!error.contains('\n'), "{error:?} is one line");
    }
}

#[test]
fn what_needs_the_apiserver_is_refused() {
    let env =
        |from: Value| json!([{"name": "main", "image": "i", "env": [{"name": "A", "valueFrom": from}]}]);
    let projected = |source: Value| json!([{"name": "v", "projected": {"sources": [source]}}]);
    let token = json!({"serviceAccountToken": {"path": "token"}});
    let bundle = json!({"clusterTrustBundle": {"name": "b", "path": "p"}});
    let certificate = json!({"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519"}});
    let cases = [
        ("serviceAccountName", json!("default"), "serviceaccounts"),
        ("serviceAccount", json!("default"), "serviceaccounts"),
        ("imagePullSecrets", json!([{"name": "s"}]), "secrets"),
        ("containers", env(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "secrets"),
        ("containers", env(json!({"configMapKeyRef": {"name": "c", "key": "k"}})), "configmaps"),
        ("resourceClaims", json!([{"name": "c", "resourceClaimName": "c"}]), "resourceclaims"),
        ("volumes", json!([{"name": "v", "configMap": {"name": "c"}}]), "configmaps"),
        ("volumes", json!([{"name": "v", "secret": {"secretName": "c"}}]), "secrets"),
        ("volumes", json!([{"name": "v", "csi": {"driver": "d"}}]), "csidrivers (via CSI volumes)"),
        (
            "volumes",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
            "persistentvolumeclaims",
        ),
        (
            "volumes",
            json!([{"name": "v", "azureFile": {"secretName": "s", "shareName": "s"}}]),
            "secrets (via azureFile volumes)",
        ),
        ("volumes", projected(token), "serviceaccounts (via projected volumes)"),
        ("volumes", projected(bundle), "clustertrustbundles"),
        ("volumes", projected(certificate), "podcertificates"),
    ];
    for (field, value, resource) in cases {
        let message = error(&with_spec(field, value));
        assert_eq!(
            message,
            format!("default/web-node-1: static pods may not reference {resource}"),
            "{field}"
        );
    }
    let error = error(&with_spec("ephemeralContainers", json!([{"name": "e", "image": "i"}])));
    assert!(error.contains("spec.ephemeralContainers"), "{error}");
}

#[test]
fn what_the_node_has_by_itself_is_taken() {
    let volumes = json!([
        {"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/etc"}},
        {"name": "c", "downwardAPI": {"items": []}},
        {"name": "d", "projected": {"sources": [{"downwardAPI": {"items": []}}]}}]);
    assert!(decoded(&with_spec("volumes", volumes)).warnings.is_empty());
}

#[test]
fn warnings_tell_of_what_is_not_done() {
    let warnings = |manifest: &[u8]| decoded(manifest).warnings.join("; ");
    let priority = |priority: Value, class: Value| {
        warnings(&manifest(|p| {
            p["spec"]["priority"] = priority;
            p["spec"]["priorityClassName"] = class;
        }))
    };
    assert_eq!(priority(json!(2_000_001_000), json!("system-node-critical")), "");
    assert!(priority(json!(null), json!("some")).contains("without priority"));
    assert!(priority(json!(2_000_001_000), json!(null)).contains("without priorityClassName"));
    assert!(priority(json!(0), json!(null)).contains("without priorityClassName"));
    assert!(priority(json!(2_000_001_000), json!("other")).contains("2000001000"));
    let unknown = warnings(&with_spec("comand", json!(["x"])));
    assert_eq!(unknown, "unknown field \"spec.comand\" is ignored");
    let several = [manifest(|_| ()).as_slice(), b"\n---\nkind: Other\n"].concat();
    let several = [b"---\n".as_slice(), &several].concat();
    assert!(warnings(&several).contains("only the first"));
}

#[test]
fn a_url_may_have_a_list() {
    let decode = |manifest: Value| {
        let pods = decode_static_pods(manifest.to_string().as_bytes(), URL, "node-1")?;
        Ok::<_, ManifestError>(pods.iter().map(|p| p.pod.name().to_owned()).collect::<Vec<_>>())
    };
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "1", "image": "foo"}]}});
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "PodList", "items": items});
    assert_eq!(decode(list(json!([pod("foo"), pod("bar")]))).unwrap(), ["foo-node-1", "bar-node-1"]);
    assert!(decode(list(json!([]))).unwrap().is_empty());
    assert!(decode(list(json!([pod("foo"), pod("")]))).is_err());
    let mut single = pod("foo");
    (single["apiVersion"], single["kind"]) = (json!("v1"), json!("Pod"));
    assert_eq!(decode(single).unwrap(), ["foo-node-1"]);
    assert!(decode(json!({"apiVersion": "v1", "kind": "ConfigMapList", "items": []})).is_err());
    let error = decode_static_pod(list(json!([])).to_string().as_bytes(), file(), "n").unwrap_err();
    assert!(error.to_string().contains("PodList"), "{error}");
}
