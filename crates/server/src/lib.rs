//! The kubelet's own API (upstream: `pkg/kubelet/server`): HTTPS on 10250, the read-only port, and the local health port.
//!
//! A request passes, in this order: the limits of its connection ([`Limits`]), authentication and authorization
//! ([`KubeletAuth`]), and only then a handler, which sees the kubelet through [`coracle_core::host::HostInterface`].

mod about;
mod auth;
mod limits;
mod metrics;
mod peer;
mod routes;
mod serve;
mod slots;
mod stats;
mod text;
mod tls;

pub use about::{About, IsOwnAddress, MetricsSource, SetVerbosity};
pub use auth::{Authentication, Authorization, BuildAuthError, KubeletAuth, TokenWebhook};
pub use limits::Limits;
pub use serve::{
    ServerOptions, listen_and_serve_healthz, listen_and_serve_kubelet_read_only_server,
    listen_and_serve_kubelet_server,
};
pub use tls::{CertificatePair, TlsError, TlsMinVersion, TlsOptions, load_or_generate_self_signed};
