//! Pods that have to go because the node runs out of something (upstream: `pkg/kubelet/eviction`).
//!
//! Everything here is decided from what was observed and the time. Who observes, reclaims and kills is the kubelet
//! (`kubelet/eviction.rs`).

mod config;
mod local_storage;
mod manager;
mod message;
mod observations;
mod rank;
mod signal;
mod threshold;

pub use config::{EvictionStatements, StatementError, parse_threshold_config};
pub use local_storage::{exceeded_limit, has_storage_limits};
pub use manager::{EvictionConfig, EvictionManager, Pressure, grace_period};
pub use message::{evicted_status, eviction_message};
pub use observations::{FileSystems, Observation, Observations, observe, thresholds_met};
pub use rank::{ContainerFigures, PodFigures, rank};
pub use signal::{NodeCondition, Resource, Signal};
pub use threshold::{Threshold, ThresholdValue, hard_reservation};
