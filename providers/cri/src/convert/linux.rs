//! Identities, confinement and namespaces.

use coracle_provider::{
    LinuxSecurityContext, NamespaceMode, NetworkMode, SecurityProfile, SupplementalGroupsPolicy,
};

use crate::bindings as cri;
use crate::bindings::security_profile::ProfileType;

/// As upstream's sandboxes have it: the fields of `LinuxSandboxSecurityContext`.
pub(super) fn sandbox_security(
    security: &LinuxSecurityContext,
    network: NetworkMode,
) -> cri::LinuxSandboxSecurityContext {
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(security, network)),
        selinux_options: selinux(security),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(security),
        privileged: security.privileged,
        seccomp: security.seccomp.as_ref().map(profile),
        apparmor: security.apparmor.as_ref().map(profile),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

/// As upstream's containers have it: the fields of `LinuxContainerSecurityContext`.
// Older runtimes read nothing but the deprecated field.
#[allow(deprecated)]
pub(super) fn container_security(
    security: &LinuxSecurityContext,
    network: NetworkMode,
) -> cri::LinuxContainerSecurityContext {
    let capabilities = security.capabilities.as_ref().map(|it| cri::Capability {
        add_capabilities: it.add.clone(),
        drop_capabilities: it.drop.clone(),
        ..cri::Capability::default()
    });
    cri::LinuxContainerSecurityContext {
        capabilities,
        privileged: security.privileged,
        namespace_options: Some(namespaces(security, network)),
        selinux_options: selinux(security),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(security),
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: security.seccomp.as_ref().map(profile),
        apparmor: security.apparmor.as_ref().map(profile),
        apparmor_profile: security.apparmor.as_ref().map(old_apparmor_profile).unwrap_or_default(),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

fn namespaces(security: &LinuxSecurityContext, network: NetworkMode) -> cri::NamespaceOption {
    let network = match network {
        NetworkMode::Pod => cri::NamespaceMode::Pod,
        NetworkMode::Node => cri::NamespaceMode::Node,
    };
    let target = match &security.pid_namespace {
        NamespaceMode::Target(id) => id.clone(),
        _ => String::new(),
    };
    cri::NamespaceOption {
        network: network.into(),
        pid: namespace(&security.pid_namespace),
        ipc: namespace(&security.ipc_namespace),
        target_id: target,
        userns_options: None,
    }
}

fn namespace(mode: &NamespaceMode) -> i32 {
    let mode = match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
        NamespaceMode::Target(_) => cri::NamespaceMode::Target,
    };
    mode.into()
}

fn selinux(security: &LinuxSecurityContext) -> Option<cri::SeLinuxOption> {
    security.selinux.as_ref().map(|it| cri::SeLinuxOption {
        user: it.user.clone(),
        role: it.role.clone(),
        r#type: it.type_.clone(),
        level: it.level.clone(),
    })
}

fn groups_policy(security: &LinuxSecurityContext) -> i32 {
    let policy = match security.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => cri::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => cri::SupplementalGroupsPolicy::Strict,
    };
    policy.into()
}

fn number(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

fn profile(profile: &SecurityProfile) -> cri::SecurityProfile {
    let (kind, localhost_ref) = match profile {
        SecurityProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SecurityProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SecurityProfile::Localhost(name) => (ProfileType::Localhost, name.clone()),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref }
}

/// How runtimes were told before there was a type for it; upstream still does (`getAppArmorProfile`).
fn old_apparmor_profile(profile: &SecurityProfile) -> String {
    match profile {
        SecurityProfile::RuntimeDefault => "runtime/default".to_owned(),
        SecurityProfile::Unconfined => "unconfined".to_owned(),
        SecurityProfile::Localhost(name) => format!("localhost/{name}"),
    }
}
