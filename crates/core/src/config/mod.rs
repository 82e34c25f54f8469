//! Where pods come from: sources, merged into one stream of updates (upstream: `pkg/kubelet/config`).

mod defaults;
mod file;
mod fixed_source;
mod manifest;
mod merge;
mod pod_config;
mod static_pod;
mod validation;

pub use defaults::set_pod_defaults;
pub use file::FileSource;
pub use fixed_source::{FixedSource, fixed_pod};
pub use manifest::{ManifestError, decode_strict};
pub use merge::{PodOperation, PodUpdate};
pub use pod_config::{PodConfig, SourcesReady};
pub use static_pod::{MAX_MANIFEST_BYTES, ManifestOrigin, StaticPod, decode_static_pod, decode_static_pods};
pub use validation::validate_pod;
pub(crate) use validation::{is_dns_label, is_dns_subdomain};
