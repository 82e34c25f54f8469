//! What of the kernel's settings and protection a pod asks for and its runtime does not give (upstream:
//! `pkg/kubelet/sysctl/allowlist.go`, `pkg/security/apparmor/validate.go`).

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::Rejection;
use crate::apparmor::{ANNOTATION_PREFIX, profile};
use crate::pod::{PodExt, phase};

const UNCONFINED: &str = "Unconfined";

/// Settings that a pod may have of its own on Linux (`SafeSysctlAllowlist`).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Refuses sysctls that the pod cannot have, and AppArmor profiles that nobody would enforce: for WebAssembly, or where the
/// kernel does not (`has_apparmor`).
pub(super) fn check(pod: &Pod, runs: Option<ArtifactKind>, has_apparmor: bool) -> Result<(), Rejection> {
    let context = pod.pod_spec().security_context.as_ref();
    let sysctls = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    for sysctl in sysctls {
        check_sysctl(pod, &sysctl.name, runs).map_err(|why| {
            Rejection::new("SysctlForbidden", format!("forbidden sysctl: {:?} {why}", sysctl.name))
        })?;
    }
    // A pod that runs already is what it is.
    let is_new = pod.phase().is_empty() || pod.phase() == phase::PENDING;
    if is_new && is_apparmor_required(pod) {
        let checked = check_apparmor(pod, runs, has_apparmor);
        checked.map_err(|why| Rejection::new("AppArmor", format!("Cannot enforce AppArmor: {why}")))?;
    }
    Ok(())
}

/// `Validate`.
fn check_apparmor(pod: &Pod, runs: Option<ArtifactKind>, has_apparmor: bool) -> Result<(), String> {
    if runs == Some(ArtifactKind::Wasm) {
        return Err("WebAssembly has none".to_owned());
    }
    if !has_apparmor {
        return Err("AppArmor is not enabled on the host".to_owned());
    }
    let profiles = pod.all_containers().into_iter().filter_map(|container| profile(pod, &container));
    let is_empty = |profile: &AppArmorProfile| {
        profile.type_ == "Localhost"
            && profile.localhost_profile.as_deref().is_none_or(|it| it.trim().is_empty())
    };
    match profiles.into_iter().find(is_empty) {
        Some(_) => Err("invalid empty AppArmor profile name".to_owned()),
        None => Ok(()),
    }
}

/// `validateSysctl`. No setting can be had by WebAssembly.
fn check_sysctl(pod: &Pod, name: &str, runs: Option<ArtifactKind>) -> Result<(), &'static str> {
    let name = name.replace('/', ".");
    if runs == Some(ArtifactKind::Wasm) || !SAFE_SYSCTLS.contains(&name.as_str()) {
        return Err("not allowlisted");
    }
    let spec = pod.pod_spec();
    if name.starts_with("net.") && pod.is_host_network() {
        return Err("not allowed with host net enabled");
    }
    if name.starts_with("kernel.shm") && spec.host_ipc == Some(true) {
        return Err("not allowed with host ipc enabled");
    }
    Ok(())
}

fn is_apparmor_required(pod: &Pod) -> bool {
    let confined = |profile: Option<&AppArmorProfile>| profile.is_some_and(|p| p.type_ != UNCONFINED);
    let of_pod = pod.pod_spec().security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    if confined(of_pod) {
        return true;
    }
    let of_containers = |c: &k8s_openapi::api::core::v1::Container| {
        confined(c.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref()))
    };
    if pod.all_containers().iter().any(of_containers) {
        return true;
    }
    let annotations = pod.metadata.annotations.iter().flatten();
    let mut profiles = annotations.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    profiles.any(|(_, profile)| profile != "unconfined")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `TestValidateValidHost`.
    #[test]
    fn profiles_are_for_linux_where_the_kernel_enforces_them() {
        let check = |profile: serde_json::Value, runs, has_apparmor| {
            let container = json!({ "name": "c", "securityContext": { "appArmorProfile": profile } });
            let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [container] } })).unwrap();
            super::check(&pod, Some(runs), has_apparmor).map_err(|rejection| rejection.message)
        };
        let (linux, default) = (ArtifactKind::RootFs, json!({ "type": "RuntimeDefault" }));
        assert_eq!(check(default.clone(), linux, true), Ok(()));
        assert_eq!(check(json!({ "type": "Localhost", "localhostProfile": "p" }), linux, true), Ok(()));
        assert_eq!(check(json!({ "type": "Unconfined" }), ArtifactKind::Wasm, false), Ok(()));
        let refused = [
            (default.clone(), linux, false, "AppArmor is not enabled on the host"),
            (default, ArtifactKind::Wasm, true, "WebAssembly has none"),
            (json!({ "type": "Localhost" }), linux, true, "invalid empty AppArmor profile name"),
        ];
        for (profile, runs, has_apparmor, why) in refused {
            assert_eq!(check(profile, runs, has_apparmor), Err(format!("Cannot enforce AppArmor: {why}")));
        }
    }

    /// `TestAllowlist`.
    #[test]
    fn sysctls_of_the_pods_own_are_allowed_on_linux() {
        let check = |spec: serde_json::Value, name: &str, runs| {
            let mut pod = json!({ "spec": spec });
            pod["spec"]["containers"] = json!([]);
            pod["spec"]["securityContext"] = json!({ "sysctls": [{ "name": name, "value": "1" }] });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            super::check(&pod, Some(runs), false).map_err(|rejection| rejection.message)
        };
        let linux = ArtifactKind::RootFs;
        assert_eq!(check(json!({}), "kernel.shm_rmid_forced", linux), Ok(()));
        assert_eq!(check(json!({}), "net/ipv4/tcp_syncookies", linux), Ok(()));
        let refused = [
            (json!({}), "kernel.msgmax", "forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
            (json!({ "hostNetwork": true }), "net.ipv4.tcp_syncookies", "not allowed with host net enabled"),
            (json!({ "hostIPC": true }), "kernel.shm_rmid_forced", "not allowed with host ipc enabled"),
        ];
        for (spec, name, words) in refused {
            let message = check(spec, name, linux).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        assert!(check(json!({}), "net.ipv4.tcp_syncookies", ArtifactKind::Wasm).is_err());
    }
}
