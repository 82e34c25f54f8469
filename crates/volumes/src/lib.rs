//! The volumes of pods: emptyDir, hostPath, configMap, secret, downwardAPI and projected, with subPath.
//!
//! [`VolumeManager`] implements the core's port `Volumes` on top of two others, `ObjectReader` and `TokenIssuer`. It
//! serves every provider: what a container sees is a path of the node.
//!
//! What it hands out as [`Mount::host_path`](coracle_provider::Mount) has no symbolic link in it. A container of the pod
//! may replace a part of the path by one before it is opened, so whoever opens it must not follow any.

mod adoption;
mod atomic_writer;
mod container_mounts;
mod disk_usage;
mod empty_dir;
mod error;
mod host_path;
mod jwt;
mod layout;
mod manager;
mod nested;
mod ownership;
mod payload;
mod pod;
mod pod_files;
mod privileges;
mod remove;
mod retry;
mod setup;
mod sources;
mod spec;
mod subpath;
mod token;
mod usage;

#[cfg(test)]
mod tests;

pub use manager::{Options, VolumeManager};
