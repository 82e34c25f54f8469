//! Where pods come from: sources, merged into one stream of updates (upstream: `pkg/kubelet/config`).

mod defaults;
mod manifest;
mod merge;
mod pod_config;
mod static_source;
mod validation;

pub use defaults::set_pod_defaults;
pub use manifest::{ManifestError, decode_strict};
pub use merge::{PodOperation, PodUpdate};
pub use pod_config::{PodConfig, SourcesReady};
pub use static_source::{StaticSource, static_pod};
pub use validation::validate_pod;
