//! What of the kernel's protection a pod asks for and no runtime here gives (upstream: `pkg/kubelet/sysctl/allowlist.go`,
//! `pkg/security/apparmor/validate.go`).

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::Rejection;
use crate::pod::{PodExt, phase};

const UNCONFINED: &str = "Unconfined";
const APPARMOR_ANNOTATION_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Refuses sysctls, and AppArmor profiles that would have to be enforced.
pub(super) fn check(pod: &Pod) -> Result<(), Rejection> {
    let context = pod.pod_spec().security_context.as_ref();
    // None is on the list of those that may be set.
    if let Some(sysctl) = context.and_then(|c| c.sysctls.as_ref()?.first()) {
        let message = format!("forbidden sysctl: {:?} not allowlisted", sysctl.name);
        return Err(Rejection::new("SysctlForbidden", message));
    }
    // A pod that runs already is what it is.
    let is_new = pod.phase().is_empty() || pod.phase() == phase::PENDING;
    if is_new && is_apparmor_required(pod) {
        let message = "Cannot enforce AppArmor: no runtime of this node has it";
        return Err(Rejection::new("AppArmor", message));
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
    let mut profiles = annotations.filter(|(key, _)| key.starts_with(APPARMOR_ANNOTATION_PREFIX));
    profiles.any(|(_, profile)| profile != "unconfined")
}
