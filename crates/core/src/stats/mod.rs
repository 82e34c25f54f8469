//! What pods use (upstream: `pkg/kubelet/stats`): what providers say of their containers, and what the node itself can
//! see. Nothing is measured at intervals; each answer is made when it is asked for.

mod disk;
mod rates;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_provider::{
    ContainerState, ContainerStats, ContainerStatus, DiskStats, ErrorKind, FsUsage, NetworkStats, PodRef,
    Provider,
};
use futures::StreamExt;
use futures::future::join_all;
use jiff::Timestamp;

use crate::blocking::blocking;
use crate::kuberuntime::{RuntimeContainer, RuntimePod};
use crate::pod_cache::PodCache;
use crate::ports::VolumeUsage;
use crate::providers::Providers;
use rates::UsageRates;
pub use volumes::VolumeStats;

/// Logs that are measured at a time.
const MAX_CONCURRENT_LOGS: usize = 16;

/// How much is asked about pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageScope {
    /// Processors and memory: what autoscalers ask for, often.
    CpuAndMemory,
    /// Networks and disks, too.
    Everything,
}

/// What the pods of this node use.
#[derive(Clone, Debug, Default)]
pub struct PodsUsage {
    /// The pods that have a sandbox and a container that runs, by name.
    pub pods: Vec<PodUsage>,
    /// Providers that could not say, with why. Their pods are missing.
    pub failed: Vec<(&'static str, String)>,
}

/// What a pod uses.
#[derive(Clone, Debug)]
pub struct PodUsage {
    /// The pod.
    pub pod: PodRef,
    /// Its sandbox.
    pub sandbox_id: String,
    /// When that was made.
    pub started_at: Timestamp,
    /// Its containers that run.
    pub containers: Vec<ContainerUsage>,
    /// What its network has carried; none if nobody counts.
    pub network: Option<NetworkStats>,
    /// Its volumes; none if they were not asked for.
    pub volumes: Vec<VolumeUsage>,
}

/// What a container that runs uses.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// The container.
    pub status: Arc<ContainerStatus>,
    /// What its provider says.
    pub stats: ContainerStats,
    /// Billionths of a processor, since it was last asked; none the first time.
    pub cpu_usage_nano_cores: Option<u64>,
    /// Its logs, rotated ones included; none if they were not asked for.
    pub logs: Option<DiskStats>,
}

/// Finds out what pods use.
pub struct StatsProvider {
    providers: Providers,
    cache: Arc<PodCache>,
    rates: UsageRates,
}

impl StatsProvider {
    /// A provider of statistics about what the cache knows.
    pub fn new(providers: Providers, cache: Arc<PodCache>) -> Self {
        Self { providers, cache, rates: UsageRates::default() }
    }

    /// What all pods use now (`ListPodStats`, `ListPodCPUAndMemoryStats`).
    pub async fn list_pod_stats(&self, scope: UsageScope) -> PodsUsage {
        let answers = join_all(self.providers.iter().map(|p| ask(&*p.provider, scope))).await;
        let (mut stats, mut networks, mut failed) = (HashMap::new(), HashMap::new(), Vec::new());
        for (registered, answer) in self.providers.iter().zip(answers) {
            match answer {
                Ok((containers, sandboxes)) => {
                    stats.extend(containers.into_iter().map(|s| (s.id.clone(), s)));
                    networks.extend(sandboxes.into_iter().map(|n| (n.sandbox_id.clone(), n)));
                }
                Err(message) => failed.push((registered.provider.name(), message)),
            }
        }
        self.rates.retain(|id| stats.contains_key(id));
        let pods = self.cache.all();
        let mut pods: Vec<PodUsage> =
            pods.iter().filter_map(|pod| self.pod_usage(pod, &mut stats, &mut networks)).collect();
        pods.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
        if scope == UsageScope::Everything {
            add_logs(&mut pods).await;
        }
        PodsUsage { pods, failed }
    }

    /// The file systems of images; those of providers that cannot say are missing (`ImageFsStats`).
    pub async fn image_fs_stats(&self) -> Vec<FsUsage> {
        let answers = join_all(self.providers.iter().map(|p| p.provider.image_fs_info())).await;
        answers.into_iter().flatten().flatten().collect()
    }

    fn pod_usage(
        &self,
        pod: &RuntimePod,
        stats: &mut HashMap<String, ContainerStats>,
        networks: &mut HashMap<String, NetworkStats>,
    ) -> Option<PodUsage> {
        let sandbox = pod.active_sandbox()?;
        let running = pod.containers.iter().filter(|c| c.state == ContainerState::Running);
        let usage = |container: &RuntimeContainer| {
            let stats = stats.remove(&container.id)?;
            let cpu_usage_nano_cores =
                self.rates.note(&stats.id, stats.timestamp, stats.cpu_usage_core_nanos);
            Some(ContainerUsage { status: container.status.clone(), stats, cpu_usage_nano_cores, logs: None })
        };
        let containers: Vec<_> = running.filter_map(usage).collect();
        (!containers.is_empty()).then(|| PodUsage {
            pod: sandbox.pod.clone(),
            sandbox_id: sandbox.id.clone(),
            started_at: sandbox.created_at,
            network: networks.remove(&sandbox.id),
            volumes: Vec::new(),
            containers,
        })
    }
}

type Answer = Result<(Vec<ContainerStats>, Vec<NetworkStats>), String>;

/// A provider without statistics is no failure: its pods just have none.
async fn ask(provider: &dyn Provider, scope: UsageScope) -> Answer {
    let containers = match provider.container_stats(None).await {
        Ok(stats) => stats,
        Err(error) if error.kind == ErrorKind::Unimplemented => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    let networks = match scope {
        UsageScope::CpuAndMemory => Vec::new(),
        UsageScope::Everything => provider.network_stats(None).await.map_err(|error| error.to_string())?,
    };
    Ok((containers, networks))
}

async fn add_logs(pods: &mut [PodUsage]) {
    let containers = pods.iter_mut().flat_map(|pod| &mut pod.containers);
    let measured = futures::stream::iter(containers).for_each_concurrent(MAX_CONCURRENT_LOGS, |container| {
        let path = container.status.log_path.clone();
        async move { container.logs = blocking(move || disk::log_files(&path)).await.ok() }
    });
    measured.await;
}
