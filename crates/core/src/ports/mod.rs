//! The doors of the core: what it asks of the world, as traits. Adapters implement them; tests fake them.

mod access;
mod cgroups;
mod error;
mod mirror;
mod node;
mod objects;
mod pod_files;
mod probe;
mod server;
mod sink;
mod source;
mod volumes;

pub use access::{AccessReviewer, Attributes, UserInfo};
pub use cgroups::{CgroupError, CgroupManager, CgroupUsage};
pub use error::ApiError;
pub use mirror::MirrorClient;
pub use node::{NodeStatusSource, NodeUsageSource};
pub use objects::{ObjectKey, ObjectKind, ObjectReader, ServiceAccounts, TokenIssuer};
pub use pod_files::PodFiles;
pub use probe::{
    GrpcCheck, HookError, HttpGet, MAX_PROBE_OUTPUT, ProbeOutcome, ProbeTransport, Scheme, TcpConnect,
};
pub use server::ApiServer;
pub use sink::{EventRecord, EventSink, EventType, StatusSink, StatusUpdate};
pub use source::{PodSource, SourceKind, SourceUpdate};
pub use volumes::{VolumeError, VolumeUsage, Volumes};
