//! Pod sandboxes: what the containers of a pod share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::{Protocol, Resources};
use crate::linux::LinuxSandboxConfig;
use crate::revision::Revision;

/// Which pod a sandbox or container belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.uid`: the key. Names are for people.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// Whose network a pod lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// An address of its own.
    #[default]
    Pod,
    /// The node's (`hostNetwork: true`).
    Node,
}

/// A `hostPort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port inside the pod.
    pub container_port: u16,
    /// Port of the node.
    pub host_port: u16,
    /// Address of the node to listen on; all of them if there is none.
    pub host_ip: Option<IpAddr>,
}

/// The resolver configuration of a pod, made from `dnsPolicy` and `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers, in order.
    pub servers: Vec<String>,
    /// Search domains, in order.
    pub searches: Vec<String>,
    /// Options as in resolv.conf: `ndots:5`.
    pub options: Vec<String>,
}

/// One line of `hostAliases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// The names that lead to it.
    pub hostnames: Vec<String>,
}

/// What to make a sandbox from. The same pod and attempt twice is one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The pod.
    pub pod: PodRef,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// The host name that containers see; empty for the node's.
    pub hostname: String,
    /// The domain of the pod's host name; empty without one. Its addresses have both names.
    pub domain: String,
    /// Labels; upstream's `io.kubernetes.pod.*` are among them.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// The folder that container logs are relative to.
    pub log_directory: PathBuf,
    /// How names resolve.
    pub dns: DnsConfig,
    /// Additional fixed names.
    pub host_aliases: Vec<HostAlias>,
    /// The pod's host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Whose network.
    pub network: NetworkMode,
    /// The RuntimeClass handler; empty for the provider's default.
    pub runtime_handler: String,
    /// What its containers have together, pod-level limits included.
    pub resources: Resources,
    /// What the runtime itself takes beside them (`spec.overhead`).
    pub overhead: Resources,
    /// What only Linux has.
    pub linux: LinuxSandboxConfig,
}

/// Whether containers can be started in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// They can.
    Ready,
    /// Stopped, or dead.
    NotReady,
}

/// The network of a pod, as other providers and probes need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// Whose network was asked for. A provider that can give no addresses of a pod's own still answers what was asked.
    pub mode: NetworkMode,
    /// The pod's addresses, the primary one first; may be empty with the node's network, never otherwise.
    pub ips: Vec<IpAddr>,
    /// The network namespace that other containers of the pod can join, where there is one for this pod alone.
    pub namespace: Option<PathBuf>,
}

/// The state of a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// The provider's id.
    pub id: String,
    /// The pod.
    pub pod: PodRef,
    /// The attempt that it was made with.
    pub attempt: u32,
    /// Whether containers can be started.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its network.
    pub network: PodNetwork,
    /// Labels that it was made with.
    pub labels: BTreeMap<String, String>,
    /// Annotations that it was made with.
    pub annotations: BTreeMap<String, String>,
    /// The RuntimeClass handler that it was made with.
    pub runtime_handler: String,
    /// When this state began, in the provider's order.
    pub revision: Revision,
}
