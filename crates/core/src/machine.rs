//! The machine that a node is (upstream: cAdvisor's `MachineInfo` and `VersionInfo`).

/// What does not change while the machine is up. Plain data; who reads it from the machine is not the core's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineInfo {
    /// The host name, in lower case.
    pub hostname: String,
    /// Processors that are online.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Swap, in bytes.
    pub swap_bytes: u64,
    /// The size of the file system of the root folder, in bytes.
    pub root_fs_bytes: u64,
    /// Tells installations of an operating system apart.
    pub machine_id: String,
    /// Tells machines apart.
    pub system_uuid: String,
    /// Tells boots apart.
    pub boot_id: String,
    /// The kernel's version (`uname -r`).
    pub kernel_version: String,
    /// The operating system's name for people.
    pub os_image: String,
    /// The processor's architecture as Go names it: `amd64`, `arm64`.
    pub architecture: String,
}
