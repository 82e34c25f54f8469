//! Containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::image::ImageSpec;
use crate::linux::LinuxContainerConfig;
use crate::revision::Revision;
use crate::sandbox::{PodRef, SandboxConfig};

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One variable of a container's environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, fully resolved. May come from a Secret, so it is never printed.
    pub value: String,
}

impl std::fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvVar").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which mounts that are made later are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// None.
    #[default]
    Private,
    /// Those of the host, in the container.
    HostToContainer,
    /// Those of either, in the other.
    Bidirectional,
}

/// A file or folder of the host that a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where the container sees it.
    pub container_path: String,
    /// What it sees; subPath is already resolved. No part of the path is a symbolic link, and a part that has become one
    /// must not be followed when it is opened: another container of the pod can have put it there.
    pub host_path: PathBuf,
    /// Whether it may only read.
    pub read_only: bool,
    /// It belongs to the node and not to the pod, and may lie on anything, also on a file system that hangs.
    pub of_node: bool,
    /// Which mounts are seen on the other side.
    pub propagation: MountPropagation,
    /// It is given the container's SELinux label, where there is SELinux.
    #[serde(default)]
    pub selinux_relabel: bool,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its name; empty if it has none.
    pub name: String,
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Limits and weights of a container. `None` means that nothing was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU limit in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// CPU request in thousandths of a core: the weight under contention.
    pub cpu_request_millis: Option<u64>,
    /// Memory limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Memory request in bytes.
    pub memory_request_bytes: Option<u64>,
}

/// What to make a container from. The same sandbox, name and attempt twice is one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name in the pod.
    pub name: String,
    /// How many instances of it there were before: the restart count.
    pub attempt: u32,
    /// The image as the user wrote it.
    pub image: ImageSpec,
    /// The image that `pull_image` or `image_status` answered with.
    pub image_ref: String,
    /// Replaces the image's entry point if not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments if not empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory if not empty.
    pub working_dir: String,
    /// The environment, fully resolved; goes before the image's own.
    pub envs: Vec<EnvVar>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
    /// The ports that it declares.
    pub ports: Vec<ContainerPort>,
    /// Where an HTTP service of this container listens: the first port named `http`, else the first TCP one, else 8080.
    pub serving_port: u16,
    /// Labels; upstream's `io.kubernetes.container.*` are among them.
    pub labels: BTreeMap<String, String>,
    /// Annotations; upstream's `io.kubernetes.container.*` are among them.
    pub annotations: BTreeMap<String, String>,
    /// The log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether standard input closes after the first client.
    pub stdin_once: bool,
    /// Whether there is a terminal.
    pub tty: bool,
    /// Limits and weights.
    pub resources: Resources,
    /// What only Linux has.
    pub linux: LinuxContainerConfig,
    /// What its sandbox was made from, for a provider that does not remember that.
    pub sandbox: Arc<SandboxConfig>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The provider cannot tell.
    Unknown,
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The provider's id.
    pub id: String,
    /// The sandbox that it lives in.
    pub sandbox_id: String,
    /// The pod.
    pub pod: PodRef,
    /// The container's name in the pod.
    pub name: String,
    /// The attempt that it was made with.
    pub attempt: u32,
    /// What it is doing.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it started, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended, if it did.
    pub finished_at: Option<Timestamp>,
    /// Its exit code, once it ended.
    pub exit_code: i32,
    /// One word about its end (`Completed`, `Error`, `OOMKilled`), or empty.
    pub reason: String,
    /// A line about its end, or empty.
    pub message: String,
    /// The image as the user wrote it.
    pub image: ImageSpec,
    /// The image that runs, with its digest: what `status.imageID` shows.
    pub image_id: String,
    /// Labels that it was made with.
    pub labels: BTreeMap<String, String>,
    /// Annotations that it was made with.
    pub annotations: BTreeMap<String, String>,
    /// What of the host it was made to see.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The absolute path of its log file.
    pub log_path: PathBuf,
    /// What holds for it now.
    pub resources: Resources,
    /// When this state began, in the provider's order.
    pub revision: Revision,
}

/// Memory of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Bytes that cannot be taken away from it: what counts towards its limit.
    pub working_set_bytes: u64,
    /// Bytes in use, caches included.
    pub usage_bytes: u64,
    /// Bytes in use that no file stands behind.
    pub rss_bytes: u64,
}

/// What something takes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Bytes.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}

/// What a container has used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// The provider's id.
    pub id: String,
    /// The pod.
    pub pod: PodRef,
    /// The container's name in the pod.
    pub name: String,
    /// When this was read.
    pub timestamp: Timestamp,
    /// CPU time in nanoseconds since the container started.
    pub cpu_usage_core_nanos: u64,
    /// Memory.
    pub memory: MemoryStats,
    /// What it wrote over its image; none where that is not known, or there is no such place.
    pub writable_layer: Option<DiskStats>,
    /// Its instances that a trap ended since it started; none where nothing traps. A service goes on after a trap, so that
    /// its status does not tell.
    pub traps: Option<u64>,
}

/// What a network interface of a pod has carried since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be received.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// What the network of a sandbox has carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// The sandbox.
    pub sandbox_id: String,
    /// When this was read.
    pub timestamp: Timestamp,
    /// Its interfaces, the default one first.
    pub interfaces: Vec<InterfaceStats>,
}
