//! The groups of classes of service (upstream: `qos_container_manager_linux.go`). Guaranteed pods are right below
//! `kubepods`.

use k8s_openapi::api::core::v1::Pod;

use coracle_provider::cpu::millis_to_shares;

use super::manager::ContainerManager;
use super::name::CgroupName;
use super::resource_config::{MIN_SHARES, ResourceConfig};
use crate::pod_resources::{PodResourcesOptions, pod_requests};
use crate::ports::CgroupError;
use crate::qos::pod_qos;

const BURSTABLE: &str = "burstable";
const BEST_EFFORT: &str = "besteffort";

impl ContainerManager {
    /// The group that pods of a class are made in.
    pub(super) fn qos_cgroup(&self, class: &str) -> CgroupName {
        match class {
            "Burstable" => self.root.child(BURSTABLE),
            "BestEffort" => self.root.child(BEST_EFFORT),
            _ => self.root.clone(),
        }
    }

    /// The groups that pods are in.
    pub(super) fn qos_cgroups(&self) -> [CgroupName; 3] {
        [self.root.child(BEST_EFFORT), self.root.child(BURSTABLE), self.root.clone()]
    }

    /// What pods ask for has changed: burstable ones together weigh what they ask for, those without a request next to
    /// nothing (`UpdateCgroups`). `pods` are those that have groups.
    pub async fn update_qos_cgroups<'a>(
        &self,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Result<(), CgroupError> {
        let burstable = pods.into_iter().filter(|pod| pod_qos(pod) == "Burstable");
        let requests = burstable.map(|pod| pod_requests(pod, PodResourcesOptions::default()));
        let millis: i64 = requests.filter_map(|list| Some(list.get("cpu")?.milli_value())).sum();
        let shares = millis_to_shares(u64::try_from(millis).unwrap_or_default());
        let _one_at_a_time = self.updating_qos.lock().await;
        self.groups.update(&self.root.child(BURSTABLE), &weight(shares)).await?;
        self.groups.update(&self.root.child(BEST_EFFORT), &weight(MIN_SHARES)).await
    }

    /// What is there from an earlier run is brought to what it should be.
    pub(super) async fn create_qos_cgroups(&self) -> Result<(), CgroupError> {
        self.groups.create(&self.root.child(BURSTABLE), &ResourceConfig::default()).await?;
        self.groups.create(&self.root.child(BEST_EFFORT), &weight(MIN_SHARES)).await
    }
}

fn weight(shares: i64) -> ResourceConfig {
    ResourceConfig { cpu_shares: Some(shares), ..ResourceConfig::default() }
}
