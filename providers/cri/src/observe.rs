//! Looking at the runtime.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_provider::{ContainerStatus, Error, Result, SandboxStatus, Snapshot};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::bindings as cri;
use crate::client::Client;
use crate::convert::{POD_UID_LABEL, container_state, container_status, sandbox_state, sandbox_status};
use crate::table::{Seen, Table};

/// Statuses that are asked for at a time when many are news.
const AT_A_TIME: usize = 8;

/// The runtime and what is known of it.
pub(crate) struct Observer {
    pub(crate) client: Client,
    pub(crate) table: Table,
}

impl Observer {
    /// How a sandbox is now.
    pub(crate) async fn sandbox(&self, id: &str) -> Result<Arc<SandboxStatus>> {
        let look = self.table.look();
        let status = self.sandbox_status(id).await?;
        self.table.see_sandbox(&look, status).ok_or_else(|| gone("sandbox", id))
    }

    /// How a container is now.
    pub(crate) async fn container(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        let look = self.table.look();
        let status = self.container_status(id).await?;
        self.table.see_container(&look, status).ok_or_else(|| gone("container", id))
    }

    /// How a sandbox is, without taking note of it.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = self.client.pod_sandbox_status(request).await?.status;
        sandbox_status(status.ok_or_else(|| empty("PodSandboxStatus", id))?)
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let status = self.client.container_status(request).await?.status;
        let status = status.ok_or_else(|| empty("ContainerStatus", id))?;
        let known = self.table.container(id).map(|known| known.sandbox_id.clone());
        let sandbox_id = match known {
            Some(id) => id,
            None => self.sandbox_id_of(id).await?,
        };
        let sandbox = self.table.sandbox(&sandbox_id);
        container_status(status, sandbox_id, sandbox.as_deref())
    }

    /// A container's status does not name its sandbox; a list does.
    async fn sandbox_id_of(&self, id: &str) -> Result<String> {
        let filter = Some(cri::ContainerFilter { id: id.to_owned(), ..cri::ContainerFilter::default() });
        let listed = self.client.list_containers(cri::ListContainersRequest { filter }).await?.containers;
        listed
            .into_iter()
            .find(|it| it.id == id)
            .map(|it| it.pod_sandbox_id)
            .ok_or_else(|| gone("container", id))
    }

    /// Looks at everything, or at everything of one pod. Sandboxes are listed first: a container that is seen in one
    /// that has ended by then has ended, too.
    pub(crate) async fn all(&self, pod_uid: Option<&str>) -> Result<Snapshot> {
        let look = self.table.look();
        let label_selector: HashMap<_, _> =
            pod_uid.iter().map(|uid| (POD_UID_LABEL.to_owned(), (*uid).to_owned())).collect();
        let filter = cri::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: pod_uid.map(|_| filter) };
        let sandboxes = self.client.list_pod_sandbox(request).await?.items;
        let filter = cri::ContainerFilter { label_selector, ..Default::default() };
        let request = cri::ListContainersRequest { filter: pod_uid.map(|_| filter) };
        let containers = self.client.list_containers(request).await?.containers;
        let seen = self.news(sandboxes, containers).await?;
        self.table.see_all(&look, pod_uid, seen);
        Ok(self.table.snapshot(pod_uid))
    }

    /// Asks for the full status of what is not as it was. What vanishes meanwhile is left to the next look.
    async fn news(&self, sandboxes: Vec<cri::PodSandbox>, containers: Vec<cri::Container>) -> Result<Seen> {
        let ids = sandboxes.iter().map(|it| it.id.clone()).chain(containers.iter().map(|it| it.id.clone()));
        let mut seen = Seen { ids: ids.collect(), ..Seen::default() };
        let new_sandboxes = sandboxes.into_iter().filter(|it| {
            self.table.sandbox(&it.id).is_none_or(|known| known.state != sandbox_state(it.state))
        });
        let asked = new_sandboxes.map(|it| async move { present(self.sandbox_status(&it.id).await) });
        let asked: Vec<_> = stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        seen.sandboxes = asked.into_iter().flatten().collect();

        let of_known = |id: &str| {
            let new = seen.sandboxes.iter().find(|it| it.id == id).cloned();
            new.or_else(|| self.table.sandbox(id).map(|known| (*known).clone()))
        };
        let mut asked = Vec::new();
        for listed in containers {
            let known = self.table.container(&listed.id);
            if known.is_some_and(|known| known.state == container_state(listed.state)) {
                continue;
            }
            let sandbox = of_known(&listed.pod_sandbox_id);
            asked.push(async move {
                let request = cri::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
                let Some(answer) = present(self.client.container_status(request).await)? else {
                    return Ok(None);
                };
                let status = answer.status.ok_or_else(|| empty("ContainerStatus", &listed.id))?;
                container_status(status, listed.pod_sandbox_id, sandbox.as_ref()).map(Some)
            });
        }
        let asked: Vec<Option<ContainerStatus>> =
            stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        seen.containers = asked.into_iter().flatten().collect();
        Ok(seen)
    }
}

fn present<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn gone(what: &str, id: &str) -> Error {
    Error::not_found(format!("{what} {id:?} is gone"))
}

fn empty(call: &str, id: &str) -> Error {
    Error::internal(format!("the runtime answered {call} of {id:?} without a status"))
}
