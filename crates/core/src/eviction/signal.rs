//! What is observed (upstream: `eviction/api/types.go`, and the tables at the top of `helpers.go`).

use std::fmt;

/// What is observed of a node. The order is that in which pods are evicted for it, memory first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that nobody works with, in bytes.
    MemoryAvailable,
    /// What is left of the memory that is for pods, in bytes.
    AllocatableMemoryAvailable,
    /// Free space where the kubelet keeps volumes and logs, in bytes.
    NodeFsAvailable,
    /// Free inodes there.
    NodeFsInodesFree,
    /// Free space where the runtime keeps images, in bytes.
    ImageFsAvailable,
    /// Free inodes there.
    ImageFsInodesFree,
    /// Free space where the runtime keeps what containers write: one of the two above.
    ContainerFsAvailable,
    /// Free inodes there.
    ContainerFsInodesFree,
    /// Process ids that are free.
    PidAvailable,
}

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Space on a disk.
    EphemeralStorage,
    /// Inodes of a disk.
    Inodes,
    /// Process ids.
    Pids,
}

/// What the Node says then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::enum_variant_names, reason = "the API's names")]
pub enum NodeCondition {
    /// Memory runs out.
    MemoryPressure,
    /// Disk space runs out.
    DiskPressure,
    /// Process ids run out.
    PIDPressure,
}

impl Signal {
    const ALL: [Self; 9] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::ContainerFsAvailable,
        Self::ContainerFsInodesFree,
        Self::PidAvailable,
    ];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::ContainerFsAvailable => "containerfs.available",
            Self::ContainerFsInodesFree => "containerfs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }

    /// What runs out (`signalToResource`).
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::NodeFsAvailable | Self::ImageFsAvailable | Self::ContainerFsAvailable => {
                Resource::EphemeralStorage
            }
            Self::NodeFsInodesFree | Self::ImageFsInodesFree | Self::ContainerFsInodesFree => {
                Resource::Inodes
            }
            Self::PidAvailable => Resource::Pids,
        }
    }

    /// What the Node says then (`signalToNodeCondition`).
    pub fn condition(self) -> NodeCondition {
        match self.resource() {
            Resource::Memory => NodeCondition::MemoryPressure,
            Resource::EphemeralStorage | Resource::Inodes => NodeCondition::DiskPressure,
            Resource::Pids => NodeCondition::PIDPressure,
        }
    }

    /// Whether it is about what containers write. That is always the disk of images or the node's own, and so are its
    /// thresholds, whatever the configuration says (`UpdateContainerFsThresholds`).
    pub(super) fn is_of_container_fs(self) -> bool {
        matches!(self, Self::ContainerFsAvailable | Self::ContainerFsInodesFree)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Resource {
    /// Its name in messages, and in requests of pods where it is one that can be asked for.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NodeCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_its_name_and_memory_comes_first() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.as_str()), Some(signal));
        }
        assert_eq!(Signal::parse("memory.free"), None);
        let mut sorted = Signal::ALL;
        sorted.sort_unstable();
        assert_eq!(sorted[..2], [Signal::MemoryAvailable, Signal::AllocatableMemoryAvailable]);
        assert_eq!(Signal::PidAvailable.condition().to_string(), "PIDPressure");
    }
}
