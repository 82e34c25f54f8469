//! What is known of a connection before any request came over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::CertificateDer;

/// The other end of a connection; every request carries it as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The certificate it showed, and its intermediates. It has the key of the first; nothing else is verified yet.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    has_been_allowed: Arc<AtomicBool>,
}

impl Peer {
    pub(crate) fn new(certificates: Option<&[CertificateDer<'static>]>) -> Self {
        Self { certificates: certificates.unwrap_or_default().into(), has_been_allowed: Arc::default() }
    }

    /// Notes that a request from it was allowed.
    pub(crate) fn mark_allowed(&self) {
        self.has_been_allowed.store(true, Ordering::Relaxed);
    }

    /// Whether any request from it was ever allowed.
    pub(crate) fn has_been_allowed(&self) -> bool {
        self.has_been_allowed.load(Ordering::Relaxed)
    }
}
