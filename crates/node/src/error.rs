//! Why something about the machine is not known.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why something about the machine is not known.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file, or the file system that it is on, cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file does not say what it always says.
    #[error("{}: there is no {what} in it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The kernel, or who mounts what it offers, lacks a controller of control groups.
    #[error(
        "no control groups for {controller} are mounted: mount cgroup2 at /sys/fs/cgroup, or set cgroupsPerQOS: false"
    )]
    NoCgroups {
        /// What is missing.
        controller: &'static str,
    },
    /// The machine has no host name.
    #[error("the host name is empty: set one, or use --hostname-override")]
    NoHostname,
    /// The network interfaces cannot be listed.
    #[error("the network interfaces cannot be listed: {0}")]
    Interfaces(io::Error),
    /// `--node-ip` is not an address that the node can be reached at.
    #[error("--node-ip {ip} {problem}")]
    NodeIp {
        /// The address.
        ip: IpAddr,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no address that the node could be reached at.
    #[error("no address found for node {node}: {problem}; set --node-ip")]
    NoAddress {
        /// The node.
        node: String,
        /// What was tried last.
        problem: &'static str,
    },
}
