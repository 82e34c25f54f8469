//! The machine that a node is (upstream: cAdvisor's `MachineInfo` and `VersionInfo`).

use coracle_provider::InterfaceStats;
use jiff::Timestamp;

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

/// What the whole machine uses (upstream: cAdvisor's statistics of the root control group).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeUsage {
    /// When this was read.
    pub timestamp: Timestamp,
    /// When the machine was started.
    pub boot_time: Timestamp,
    /// Processor time in nanoseconds since then, of all processors.
    pub cpu_usage_core_nanos: u64,
    /// Memory.
    pub memory: NodeMemory,
    /// Swap, in bytes: free and in use. None without swap.
    pub swap: Option<(u64, u64)>,
    /// The file system of the kubelet's root folder.
    pub root_fs: FileSystem,
    /// Network interfaces, the one with the default route first; without those that belong to pods.
    pub interfaces: Vec<InterfaceStats>,
    /// How many processes and threads there can be.
    pub max_pids: u64,
    /// How many there are.
    pub pids: u64,
    /// This process itself.
    pub kubelet: ProcessUsage,
}

/// Memory of the machine, in bytes and numbers of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// What is installed and not in the working set.
    pub available_bytes: u64,
    /// Everything that is not free.
    pub usage_bytes: u64,
    /// What is in use, without files that nobody used lately.
    pub working_set_bytes: u64,
    /// What no file stands behind.
    pub rss_bytes: u64,
    /// Page faults since the machine was started.
    pub page_faults: u64,
    /// Those that had to read from a disk.
    pub major_page_faults: u64,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Tells file systems of this machine apart.
    pub device: u64,
    /// Bytes that it has.
    pub capacity_bytes: u64,
    /// Bytes that are free for everybody.
    pub available_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Inodes that it has.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// When it was started.
    pub started_at: Timestamp,
    /// Processor time in nanoseconds since then, of all its threads.
    pub cpu_nanos: u64,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// Addresses that are mapped, in bytes.
    pub virtual_bytes: u64,
    /// Files that are open.
    pub open_fds: u64,
    /// How many may be.
    pub max_fds: u64,
}
