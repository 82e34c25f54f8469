//! Why a network could not be set up.

use std::io;

use ipnet::{IpNet, Ipv4Net};

/// The pod network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Neither one range nor one of each family.
    #[error("the pod ranges {0:?} must be one range, or one of each family (IPv4 and IPv6)")]
    Ranges(String),
    /// The range has no size that works.
    #[error("the pod range {range} must be between /{shortest} and /{longest}")]
    RangeSize {
        /// The range.
        range: IpNet,
        /// The longest prefix.
        longest: u8,
        /// The shortest prefix.
        shortest: u8,
    },
    /// Something on this machine uses addresses of the range.
    #[error("the pod range {range} cannot be used: {by}")]
    RangeInUse {
        /// The range.
        range: IpNet,
        /// What uses it.
        by: String,
    },
    /// Every range of a block is in use.
    #[error("no range is free in {0}: every one collides with a route of this machine or with another agent")]
    NoFreeRange(Ipv4Net),
    /// The node does not pass on what pods send each other.
    #[error(
        "this node's firewall drops packets between pods: have its FORWARD chain accept {0} (Docker drops by default)"
    )]
    NotForwarding(IpNet),
    /// The kernel refused a step.
    #[error("cannot {action}: {source}")]
    System {
        /// The step.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl NetworkError {
    pub(super) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { action: action.into(), source: source.into() }
    }

    /// Whether the process merely lacks the rights for a network of its own.
    pub(super) fn is_lack_of_rights(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::System { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }
}
