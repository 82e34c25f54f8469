//! What only sandboxes and containers of a Linux kernel have: namespaces, identities, confinement, control groups.
//! The fields are those of CRI's `LinuxPodSandboxConfig` and `LinuxContainerConfig`; other providers ignore them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whose namespace is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One that the containers of the pod share.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The node's.
    Node,
    /// That of another container of the pod, by id.
    Target(String),
}

/// How groups of the image's user and of the pod come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Those of `/etc/group` in the image, too.
    #[default]
    Merge,
    /// Only those that are named.
    Strict,
}

/// A profile of seccomp or AppArmor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// The runtime's own.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of the node's: the absolute path of a seccomp profile, the name of an AppArmor profile.
    Localhost(String),
}

/// An SELinux label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SeLinuxOptions {
    pub user: String,
    pub role: String,
    pub type_: String,
    pub level: String,
}

/// Capabilities that differ from the runtime's default, without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// To add.
    pub add: Vec<String>,
    /// To take away.
    pub drop: Vec<String>,
}

/// Who a process is and what it may do. What a sandbox has no use for is empty there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxSecurityContext {
    /// Everything is allowed; of a sandbox: it may have such containers.
    pub privileged: bool,
    /// The namespace of processes.
    pub pid_namespace: NamespaceMode,
    /// The namespace of System V IPC.
    pub ipc_namespace: NamespaceMode,
    /// The SELinux label.
    pub selinux: Option<SeLinuxOptions>,
    /// The user.
    pub run_as_user: Option<i64>,
    /// The primary group.
    pub run_as_group: Option<i64>,
    /// The user by a name of the image, if there is no number.
    pub run_as_username: String,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// How those go together with the image's.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether the root file system can only be read.
    pub readonly_rootfs: bool,
    /// The seccomp profile.
    pub seccomp: Option<SecurityProfile>,
    /// The AppArmor profile; none is the runtime's choice.
    pub apparmor: Option<SecurityProfile>,
    /// Capabilities; none is the runtime's choice.
    pub capabilities: Option<Capabilities>,
    /// Whether nothing that a process executes gives it more rights.
    pub no_new_privs: bool,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that can only be read.
    pub readonly_paths: Vec<String>,
}

/// A sandbox on Linux.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxSandboxConfig {
    /// The control group that the pod's are made in, as a path from the root of the hierarchy; empty for the runtime's choice.
    pub cgroup_parent: String,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Who and what.
    pub security: LinuxSecurityContext,
}

/// A container on Linux.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerConfig {
    /// From -1000, never killed for want of memory, to 1000, the first.
    pub oom_score_adj: i64,
    /// Who and what.
    pub security: LinuxSecurityContext,
}
