//! TLS: the serving certificate, and what is asked of clients.

mod choices;
mod client_ca;
mod error;
mod reload;
mod self_signed;
mod serving;

pub(crate) use client_ca::parse_client_ca;
pub use error::TlsError;
pub(crate) use reload::Reloading;
pub use self_signed::load_or_generate_self_signed;
pub use serving::{CertificatePair, TlsMinVersion, TlsOptions};
pub(crate) use serving::{ServingCertificate, TlsServer};
