//! The seam between Coracle's pipeline and whatever runs containers.
//!
//! A [`Provider`] has the shape of the Container Runtime Interface (CRI v1), not of a Pod: sandboxes, containers
//! and images, each with its own calls. It never restarts anything, never reads a PodSpec and never talks to the
//! apiserver; restarts, probes and volumes exist once, in the pipeline.
//!
//! Two things go beyond CRI:
//! - every state carries a [`Revision`], so that "newer than" is a comparison of numbers and not of clocks;
//! - a call that changes something answers with the new state, so that nobody has to ask again.

mod container;
#[cfg(feature = "contract")]
pub mod contract;
pub mod cpu;
mod error;
mod event;
#[cfg(feature = "fake")]
pub mod fake;
mod image;
mod linux;
mod revision;
mod sandbox;
mod service;
mod snapshot;
mod streaming;

pub use container::{
    ContainerConfig, ContainerPort, ContainerState, ContainerStats, ContainerStatus, DiskStats, EnvVar,
    InterfaceStats, MemoryStats, Mount, MountPropagation, NetworkStats, Protocol, Resources,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventStream};
pub use image::{ArtifactKind, FsUsage, Image, ImageSpec, PullProgress, PullRequest, RegistryAuth, Secret};
pub use linux::{
    Capabilities, LinuxContainerConfig, LinuxSandboxConfig, LinuxSecurityContext, NamespaceMode,
    SeLinuxOptions, SecurityProfile, SupplementalGroupsPolicy,
};
pub use revision::{Revision, RevisionCounter};
pub use sandbox::{
    DnsConfig, HostAlias, NetworkMode, PodNetwork, PodRef, PortMapping, SandboxConfig, SandboxState,
    SandboxStatus,
};
pub use service::{
    Condition, ImageService, LiveResize, Provider, RuntimeHandler, RuntimeService, RuntimeStatus, Version,
};
pub use snapshot::Snapshot;
pub use streaming::{
    ExecSyncResponse, PortConnection, SessionOptions, Stream, StreamingService, TerminalSize,
};
