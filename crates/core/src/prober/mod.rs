//! Probes: whether containers have started, are alive and are ready (upstream: `pkg/kubelet/prober`).
//!
//! A probe is a record, not a task: one scheduler knows when each is due, and a bounded number run at a time. A probe
//! is looked at when it is due, and whenever the status of its pod was set: so the first one follows the start of its
//! container without a wait.

mod manager;
mod request;
mod results;
mod run_probe;
mod worker;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};

pub use manager::Manager;
pub use request::http_get_request;
pub use results::{ProbeResult, ProbeResults, Results, Update};
pub use run_probe::Prober;

use crate::pod::{PodExt, PodUid, is_restartable_init_container};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeType {
    /// Whether the container has to be restarted.
    Liveness,
    /// Whether the container can do its work.
    Readiness,
    /// Whether the container has started; until then the others wait.
    Startup,
}

impl ProbeType {
    const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The probe of this type that a container has.
    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

impl fmt::Display for ProbeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        })
    }
}

/// One probe of one container (`probeKey`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ProbeKey {
    pod_uid: PodUid,
    container: Arc<str>,
    probe_type: ProbeType,
}

/// The probes of a pod: of its main containers and of its sidecars.
fn probes_of(pod: &Pod) -> impl Iterator<Item = (&Container, ProbeType, &Probe)> {
    let sidecars = pod.init_containers().iter().filter(|c| is_restartable_init_container(c));
    pod.containers().iter().chain(sidecars).flat_map(|container| {
        ProbeType::ALL.into_iter().filter_map(move |t| Some((container, t, t.of(container)?)))
    })
}
