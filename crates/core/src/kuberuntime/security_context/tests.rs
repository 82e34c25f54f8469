use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let metadata = json!({ "name": "p", "namespace": "n", "uid": "u" });
    let mut pod = json!({ "metadata": metadata, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn of_container(pod_context: Value, own: Value, user: &ImageUser) -> Result<LinuxSecurityContext, String> {
    let containers = json!([{ "name": "c", "image": "i", "securityContext": own }]);
    let pod = pod(json!({ "securityContext": pod_context, "containers": containers }));
    let options = SeccompOptions { profile_root: "/profiles".into(), default_to_runtime: false };
    container_security(&pod, &pod.containers()[0], user, &options)
}

fn user(uid: Option<i64>, username: &str) -> ImageUser {
    ImageUser { uid, username: username.into() }
}

/// `TestVerifyRunAsNonRoot`.
#[test]
fn non_root_is_verified() {
    let root = user(Some(0), "");
    let cases = [
        (json!({}), json!({}), &root, None),
        (json!({}), json!({ "runAsNonRoot": true, "runAsUser": 0 }), &root, Some("breaks non-root policy")),
        (json!({ "runAsNonRoot": true, "runAsUser": 1000 }), json!({}), &root, None),
        (
            json!({ "runAsNonRoot": true, "runAsUser": 1000 }),
            json!({ "runAsUser": 0 }),
            &root,
            Some("breaks"),
        ),
        (json!({ "runAsNonRoot": true }), json!({ "runAsNonRoot": false }), &root, None),
        (json!({ "runAsNonRoot": true }), json!({}), &root, Some("image will run as root")),
        (json!({ "runAsNonRoot": true }), json!({}), &user(Some(123), ""), None),
        (json!({ "runAsNonRoot": true }), json!({}), &user(Some(i64::MAX), ""), Some("invalid user id")),
        (json!({ "runAsNonRoot": true }), json!({}), &user(None, "bar"), Some("non-numeric user (bar)")),
        (json!({ "runAsNonRoot": true }), json!({}), &user(None, ""), None),
    ];
    for (pod_context, own, user, expected) in cases {
        let verified = of_container(pod_context.clone(), own.clone(), user);
        match (expected, verified) {
            (None, Ok(_)) => {}
            (Some(words), Err(message)) if message.contains(words) => {}
            (_, got) => panic!("{pod_context} {own} {user:?}: {got:?}"),
        }
    }
}

/// `TestDetermineEffectiveSecurityContext` and `TestDetermineEffectiveRunAsUser`: what a container says goes before what its
/// pod says, and that before the image.
#[test]
fn the_container_goes_before_the_pod_and_the_pod_before_the_image() {
    let image = user(Some(3), "");
    let id = |pod: Value, own: Value| of_container(pod, own, &image).unwrap().run_as_user;
    assert_eq!(id(json!({}), json!({})), Some(3));
    assert_eq!(id(json!({ "runAsUser": 2 }), json!({})), Some(2));
    assert_eq!(id(json!({ "runAsUser": 2 }), json!({ "runAsUser": 1 })), Some(1));
    let named = of_container(json!({}), json!({}), &user(None, "www")).unwrap();
    assert_eq!((named.run_as_user, named.run_as_username.as_str()), (None, "www"));
    let numbered = of_container(json!({ "runAsUser": 2 }), json!({}), &user(None, "www")).unwrap();
    assert_eq!((numbered.run_as_user, numbered.run_as_username.as_str()), (Some(2), ""));
    let levels = of_container(
        json!({ "seLinuxOptions": { "level": "pod" }, "fsGroup": 7, "supplementalGroups": [8, 9] }),
        json!({ "seLinuxOptions": { "level": "own" } }),
        &image,
    )
    .unwrap();
    assert_eq!(levels.selinux.unwrap().level, "own");
    assert_eq!(levels.supplemental_groups, [7, 8, 9]);
}

/// `TestGetSeccompProfile`.
#[test]
fn seccomp_profiles() {
    let profile =
        |pod: Value, own: Value| of_container(pod, own, &user(None, "")).map(|it| it.seccomp.unwrap());
    let seccomp = |kind: &str, name: Option<&str>| match name {
        Some(name) => json!({ "seccompProfile": { "type": kind, "localhostProfile": name } }),
        None => json!({ "seccompProfile": { "type": kind } }),
    };
    assert_eq!(profile(json!({}), json!({})), Ok(SecurityProfile::Unconfined));
    assert_eq!(profile(seccomp("RuntimeDefault", None), json!({})), Ok(SecurityProfile::RuntimeDefault));
    let own = seccomp("Localhost", Some("filename"));
    let file = SecurityProfile::Localhost("/profiles/filename".into());
    assert_eq!(profile(seccomp("RuntimeDefault", None), own), Ok(file));
    assert!(profile(json!({}), seccomp("Localhost", None)).is_err());
}

/// `TestNamespacesForPod`.
#[test]
fn namespaces() {
    let of = |spec: Value| {
        let security = sandbox_security(&pod(spec));
        (security.pid_namespace, security.ipc_namespace)
    };
    assert_eq!(of(json!({})), (NamespaceMode::Container, NamespaceMode::Pod));
    assert_eq!(of(json!({ "shareProcessNamespace": true })), (NamespaceMode::Pod, NamespaceMode::Pod));
    assert_eq!(of(json!({ "hostPID": true, "hostIPC": true })), (NamespaceMode::Node, NamespaceMode::Node));
}

#[test]
fn what_protects_a_container() {
    let own = json!({
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
    });
    let it = of_container(json!({}), own, &user(None, "")).unwrap();
    assert!(it.readonly_rootfs && it.no_new_privs && !it.privileged);
    assert_eq!(
        it.capabilities,
        Some(Capabilities { add: vec!["NET_ADMIN".into()], drop: vec!["ALL".into()] })
    );
    assert!(
        it.masked_paths.contains(&"/proc/kcore".to_owned())
            && it.readonly_paths.contains(&"/proc/sys".to_owned())
    );
    let unmasked = of_container(json!({}), json!({ "procMount": "Unmasked" }), &user(None, "")).unwrap();
    assert!(unmasked.masked_paths.is_empty() && unmasked.readonly_paths.is_empty() && !unmasked.no_new_privs);
}
