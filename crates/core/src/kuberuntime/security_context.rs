//! Who the processes of a pod are and what they may do (upstream: `kuberuntime/security_context.go`,
//! `security_context_others.go`, `pkg/securitycontext/util.go`).

use std::path::Path;

use coracle_provider::{
    Capabilities, LinuxSecurityContext, NamespaceMode, SeLinuxOptions, SecurityProfile,
    SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities as ApiCapabilities, Container, Pod, PodSecurityContext, SELinuxOptions,
    SeccompProfile, SecurityContext,
};

use crate::apparmor;
use crate::pod::PodExt;

/// Hidden from containers, beside `thermal_throttle` of each processor (`defaultMaskedPaths`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where profiles are, and what holds without one.
#[derive(Clone, Debug, Default)]
pub struct SeccompOptions {
    /// The folder that `localhostProfile` is relative to.
    pub profile_root: std::path::PathBuf,
    /// Whether the runtime's profile holds for containers that name none (`seccompDefault`).
    pub default_to_runtime: bool,
}

/// Who an image says its processes are.
#[derive(Clone, Debug, Default)]
pub(super) struct ImageUser {
    /// By number.
    pub(super) uid: Option<i64>,
    /// By name.
    pub(super) username: String,
}

/// Of a pod's sandbox (`generatePodSandboxLinuxConfig`).
pub(super) fn sandbox_security(pod: &Pod) -> LinuxSecurityContext {
    let own = pod.pod_spec().security_context.clone().unwrap_or_default();
    LinuxSecurityContext {
        privileged: pod.all_containers().iter().any(is_privileged),
        seccomp: Some(SecurityProfile::RuntimeDefault),
        run_as_user: own.run_as_user,
        run_as_group: own.run_as_group,
        selinux: own.se_linux_options.as_ref().map(selinux),
        ..of_namespaces_and_groups(pod, &own)
    }
}

/// Of a container (`determineEffectiveSecurityContext`); the error says why it must not start as it is.
pub(super) fn container_security(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    seccomp: &SeccompOptions,
) -> Result<LinuxSecurityContext, String> {
    let of_pod = pod.pod_spec().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if must_be_non_root(pod, container) {
        verify_run_as_non_root(pod, container, run_as_user, user)?;
    }
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    Ok(LinuxSecurityContext {
        privileged: own.privileged.unwrap_or(false),
        selinux: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: run_as_user.or(user.uid),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: if run_as_user.is_none() { user.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        seccomp: Some(seccomp_profile(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            seccomp,
        )?),
        apparmor: apparmor_profile(apparmor::profile(pod, container).as_ref())?,
        capabilities: own.capabilities.as_ref().map(capabilities),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { masked_paths() },
        readonly_paths: if unmasked { Vec::new() } else { READONLY_PATHS.map(str::to_owned).into() },
        ..of_namespaces_and_groups(pod, &of_pod)
    })
}

/// Whether a container must not run as root.
pub(super) fn must_be_non_root(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|own| own.run_as_non_root);
    let of_pod = pod.pod_spec().security_context.as_ref().and_then(|of_pod| of_pod.run_as_non_root);
    own.or(of_pod) == Some(true)
}

fn is_privileged(container: &Container) -> bool {
    let own: Option<&SecurityContext> = container.security_context.as_ref();
    own.and_then(|own| own.privileged).unwrap_or(false)
}

/// `NamespacesForPod`, and the groups that sandbox and containers share.
fn of_namespaces_and_groups(pod: &Pod, own: &PodSecurityContext) -> LinuxSecurityContext {
    let spec = pod.pod_spec();
    let pid_namespace = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let ipc_namespace = if spec.host_ipc == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let groups = own.fs_group.into_iter().chain(own.supplemental_groups.iter().flatten().copied());
    LinuxSecurityContext {
        pid_namespace,
        ipc_namespace,
        supplemental_groups: groups.collect(),
        supplemental_groups_policy: match own.supplemental_groups_policy.as_deref() {
            Some("Strict") => SupplementalGroupsPolicy::Strict,
            _ => SupplementalGroupsPolicy::Merge,
        },
        ..LinuxSecurityContext::default()
    }
}

/// `verifyRunAsNonRoot`.
fn verify_run_as_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    user: &ImageUser,
) -> Result<(), String> {
    let whose = format!(
        "(pod: \"{}_{}({})\", container: {})",
        pod.name(),
        pod.namespace(),
        pod.uid(),
        container.name
    );
    match (run_as_user, user.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
        (None, Some(uid)) if !(1..=i64::from(i32::MAX)).contains(&uid) => Err(format!(
            "container has runAsNonRoot and image has an invalid user id ({uid}). (Must be 1-({})) {whose}",
            i32::MAX
        )),
        (None, Some(_)) => Ok(()),
        (None, None) if !user.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whose}",
            user.username
        )),
        (None, None) => Ok(()),
    }
}

/// `getSeccompProfile`.
fn seccomp_profile(
    profile: Option<&SeccompProfile>,
    options: &SeccompOptions,
) -> Result<SecurityProfile, String> {
    let Some(profile) = profile else {
        let default = if options.default_to_runtime {
            SecurityProfile::RuntimeDefault
        } else {
            SecurityProfile::Unconfined
        };
        return Ok(default);
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(SecurityProfile::RuntimeDefault),
        "Localhost" => match profile.localhost_profile.as_deref() {
            Some(name) if !name.is_empty() => localhost_profile(&options.profile_root, name),
            _ => Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned()),
        },
        _ => Ok(SecurityProfile::Unconfined),
    }
}

fn localhost_profile(root: &Path, name: &str) -> Result<SecurityProfile, String> {
    let path = root.join(name.trim_start_matches('/'));
    let text = path.to_str().ok_or_else(|| format!("the path of seccomp profile {name:?} is not UTF-8"))?;
    Ok(SecurityProfile::Localhost(text.to_owned()))
}

/// `getAppArmorProfile`.
fn apparmor_profile(profile: Option<&AppArmorProfile>) -> Result<Option<SecurityProfile>, String> {
    let Some(profile) = profile else { return Ok(None) };
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Ok(Some(SecurityProfile::RuntimeDefault)),
        ("Unconfined", _) => Ok(Some(SecurityProfile::Unconfined)),
        ("Localhost", Some(name)) => Ok(Some(SecurityProfile::Localhost(name.clone()))),
        ("Localhost", None) => Err("missing localhost apparmor profile name".to_owned()),
        (other, _) => Err(format!("unknown apparmor profile type: {other:?}")),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOptions {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    SeLinuxOptions {
        user: text(&options.user),
        role: text(&options.role),
        type_: text(&options.type_),
        level: text(&options.level),
    }
}

fn capabilities(wanted: &ApiCapabilities) -> Capabilities {
    let list = |it: &Option<Vec<String>>| it.clone().unwrap_or_default();
    Capabilities { add: list(&wanted.add), drop: list(&wanted.drop) }
}

fn masked_paths() -> Vec<String> {
    let throttle = |cpu: u32| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    let throttles = possible_cpus().map(throttle).filter(|path| Path::new(path).exists());
    MASKED_PATHS.map(str::to_owned).into_iter().chain(throttles).collect()
}

/// Processors are numbered from 0 without gaps, as far as they are shown.
fn possible_cpus() -> impl Iterator<Item = u32> {
    (0..).take_while(|cpu| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists())
}

#[cfg(test)]
mod tests;
