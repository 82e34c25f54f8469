//! Resources of containers that run.

use std::sync::Arc;

use coracle_provider::{ContainerStatus, Error, ErrorKind, Resources, Result};

use super::{Shared, no_container};

impl Shared {
    /// Gives a running container another memory limit. Nothing is recorded: guests do not outlive the process that its
    /// limits are kept in.
    pub(super) fn update_resources(&self, id: &str, resources: Resources) -> Result<Arc<ContainerStatus>> {
        let container = self.tables.container(id).ok_or_else(|| no_container(id))?;
        let not_running = || Error::invalid(format!("container {id} does not run"));
        let (old, memory) =
            (container.status().resources.clone(), container.memory().ok_or_else(not_running)?);
        let cpu = |r: &Resources| (r.cpu_limit_millis, r.cpu_request_millis);
        if cpu(&old) != cpu(&resources) {
            return Err(Error::unimplemented("changing the CPU of a container that runs"));
        }
        memory
            .set_limit(self.memory_limit(&resources))
            .map_err(|error| Error::new(ErrorKind::ResourceExhausted, error.to_string()))?;
        self.tables.set_resources(&container, resources).ok_or_else(not_running)
    }
}
