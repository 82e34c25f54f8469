//! Flags and configuration of `coracle kubelet`: upstream's names, defaults and precedence.
//!
//! Two tables say what each setting does here: the fields of `KubeletConfiguration` and the flags. Raw flags
//! ([`KubeletArgs`]) and files become one [`Resolved`] configuration, or an error that names what is wrong.

mod args;
pub mod docs;
mod document;
mod duration;
mod error;
pub mod eviction;
mod feature_gates;
mod field;
mod fields;
mod flags;
mod kubelet_configuration;
mod kubelet_flags;
mod labels;
pub mod node_resources;
mod pflag;
mod resolve;
mod sources;
mod support;
mod taints;
mod validation;
mod values;
mod wasm_flags;

pub use args::KubeletArgs;
pub use error::ConfigError;
pub use field::{Field, Kind, Literal, Unset};
pub use fields::FIELDS;
pub use flags::{Flag, flags};
pub use kubelet_configuration::{
    CrashLoopBackOffConfig, KubeletAnonymousAuthentication, KubeletAuthentication, KubeletAuthorization,
    KubeletAuthorizationMode, KubeletConfiguration, KubeletWebhookAuthentication,
    KubeletWebhookAuthorization, KubeletX509Authentication, LogFormat, LoggingConfiguration,
    StaticPodUrlHeader, TlsMinVersion,
};
pub use kubelet_flags::KubeletFlags;
pub use resolve::Resolved;
pub use support::Support;
pub use wasm_flags::WasmFlags;
