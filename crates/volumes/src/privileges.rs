//! What this process may do.

use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities that volumes depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Privileges {
    /// Mounts (`CAP_SYS_ADMIN`): without it, no volume in memory.
    pub(crate) may_mount: bool,
    /// Gives files away (`CAP_CHOWN`): without it, every file belongs to the user that containers run as anyway.
    pub(crate) may_chown: bool,
}

impl Privileges {
    /// Those of the calling thread.
    pub(crate) fn of_this_process() -> Self {
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        Self {
            may_mount: effective.contains(CapabilitySet::SYS_ADMIN),
            may_chown: effective.contains(CapabilitySet::CHOWN | CapabilitySet::FOWNER),
        }
    }
}
