//! Control groups of Linux pods in the life of a pod (upstream: the parts of `SyncPod`, `SyncTerminatedPod` and
//! `HandlePodCleanups` about them).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ArtifactKind;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{interval, sleep};
use tracing::{info, warn};

use super::Kubelet;
use crate::cm::{CgroupName, ContainerManager};
use crate::kuberuntime::RuntimePod;
use crate::pod::{PodExt, PodUid, restart_policy};
use crate::pod_cache::ProviderName;
use crate::pod_workers::SyncError;
use crate::ports::EventType;
use crate::recorder::reason;

/// How often the weights of classes are brought up to date (`periodicQOSCgroupUpdateInterval`).
const QOS_PERIOD: Duration = Duration::from_secs(60);
/// When to try again what pods use too much memory for.
const ENFORCE_RETRY: Duration = Duration::from_secs(60);

impl Kubelet {
    /// A Linux pod has its control group before anything of it starts. One that runs without, because pods had none when it
    /// started, is stopped, so that it comes back in its group. Answers what the runtime has of it then.
    pub(super) async fn ensure_pod_cgroup(
        &self,
        pod: &Arc<Pod>,
        provider: Option<ProviderName>,
        runtime: RuntimePod,
    ) -> Result<RuntimePod, SyncError> {
        let Some(manager) = self.cgroups_of(provider) else { return Ok(runtime) };
        if manager.has_pod_cgroup(pod).await {
            return Ok(runtime);
        }
        let mut runtime = runtime;
        if runtime.running_containers().next().is_some() {
            info!(pod = %pod.display_name(), "stopping a pod that runs without a control group of its own");
            let result = self.runtime.kill_pod(Some(pod), &runtime, &[], None).await;
            result.error().map_or(Ok(()), Err)?;
            runtime = self.runtime.get_pod_status(&pod.uid()).await?;
            if runs_once(pod) {
                return Ok(runtime);
            }
        }
        self.update_qos_cgroups(manager, Some(pod)).await;
        if let Err(error) = manager.create_pod_cgroup(pod).await {
            let message = format!("unable to ensure pod container exists: {error}");
            self.recorder.warning(pod, reason::FAILED_TO_CREATE_POD_CONTAINER, message);
            return Err(SyncError::failed(format!(
                "failed to ensure that the pod: {} cgroups exist and are correctly applied: {error}",
                pod.uid()
            )));
        }
        Ok(runtime)
    }

    /// Nothing of a pod runs any more, and its volumes are gone.
    pub(super) async fn remove_pod_cgroup(&self, pod: &Pod) -> Result<(), SyncError> {
        let Some(manager) = &self.container_manager else { return Ok(()) };
        let destroyed = manager.destroy_pod_cgroup(pod).await;
        destroyed.map_err(|error| SyncError::failed(format!("removing the pod's cgroups: {error}")))
    }

    /// Holds pods to what is for them, and keeps the weights of classes up to date, until dropped.
    pub(super) async fn run_cgroups(self: Arc<Self>) {
        let Some(manager) = &self.container_manager else { return };
        while let Err(message) = manager.enforce_node_allocatable().await {
            let reason = reason::FAILED_NODE_ALLOCATABLE_ENFORCEMENT;
            self.recorder.event(self.node_reference(), EventType::Warning, reason, message);
            sleep(ENFORCE_RETRY).await;
        }
        let message = "Updated Node Allocatable limit across pods";
        let reason = reason::SUCCESSFUL_NODE_ALLOCATABLE_ENFORCEMENT;
        self.recorder.event(self.node_reference(), EventType::Normal, reason, message);
        let mut period = interval(QOS_PERIOD);
        loop {
            period.tick().await;
            self.update_qos_cgroups(manager, None).await;
        }
    }

    /// Removes groups of pods that are neither wanted nor alive (`cleanupOrphanedPodCgroups`).
    pub(super) async fn clean_up_orphaned_pod_cgroups(&self) {
        let Some(manager) = &self.container_manager else { return };
        let linux = self.providers.iter().filter(|p| p.provider.runs() == ArtifactKind::RootFs);
        if !linux.map(|p| p.provider.name()).all(|name| self.pod_cache.is_synced(name)) {
            // Nobody knows yet what is alive.
            return;
        }
        // Groups come first: a pod that has come since is not among them.
        let found = match manager.pod_cgroups().await {
            Ok(found) => found,
            Err(error) => return warn!(%error, "listing the control groups of pods failed"),
        };
        let on_disk = self.volumes.known_pods().await.unwrap_or_default();
        for (uid, name) in found {
            let wanted = self.pod_manager.get(&uid).is_some_and(|pod| !self.is_pod_inactive(&pod))
                || self.pod_workers.could_have_running_containers(&uid);
            if !wanted && !self.pod_cache.get(&uid).is_alive() {
                self.remove_orphan(manager, &uid, &name, on_disk.iter().any(|other| *other == *uid)).await;
            }
        }
    }

    /// As long as there are volumes, the memory that those hold would be charged to all pods.
    async fn remove_orphan(
        &self,
        manager: &ContainerManager,
        uid: &PodUid,
        name: &CgroupName,
        has_volumes: bool,
    ) {
        let done = match has_volumes {
            true => manager.reduce_cpu_limits(name).await,
            false => manager.destroy_orphan(name).await,
        };
        if let Err(error) = done {
            warn!(%uid, %error, "removing the control group of an orphaned pod failed");
        }
    }

    /// Sums up what the pods ask for that have groups, and one that is about to get its own.
    async fn update_qos_cgroups(&self, manager: &ContainerManager, about_to: Option<&Arc<Pod>>) {
        let with_groups: HashSet<PodUid> = match manager.pod_cgroups().await {
            Ok(found) => found.into_keys().collect(),
            Err(error) => return warn!(%error, "listing the control groups of pods failed"),
        };
        let pods = self.pod_manager.pods().into_iter();
        let pods = pods.filter(|pod| with_groups.contains(&pod.uid()) && !self.is_pod_inactive(pod));
        let pods = pods.filter(|pod| about_to.is_none_or(|other| other.uid() != pod.uid()));
        let mut pods: Vec<Arc<Pod>> = pods.map(|pod| self.allocation_manager.allocated_pod(&pod)).collect();
        pods.extend(about_to.cloned());
        if let Err(error) = manager.update_qos_cgroups(pods.iter().map(AsRef::as_ref)).await {
            warn!(%error, "updating the control groups of the classes of service failed");
        }
    }

    /// Who keeps the control groups of this provider's pods; none of one that runs no Linux containers.
    fn cgroups_of(&self, provider: Option<ProviderName>) -> Option<&Arc<ContainerManager>> {
        let provider = self.providers.by_name(provider?)?;
        self.container_manager.as_ref().filter(|_| provider.runs() == ArtifactKind::RootFs)
    }
}

/// Whether nothing of a pod is started again once it has ended.
fn runs_once(pod: &Pod) -> bool {
    let is_restartable = |container: &k8s_openapi::api::core::v1::Container| {
        let own = container.restart_policy.as_deref();
        own.is_some_and(|policy| policy != restart_policy::NEVER)
            || container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty())
    };
    pod.restart_policy() == restart_policy::NEVER && !pod.containers().iter().any(is_restartable)
}
