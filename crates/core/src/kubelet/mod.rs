//! The kubelet: what it is made of, and how its life goes (upstream: `pkg/kubelet/kubelet.go`).

mod admit;
mod bootstrap;
mod cgroups;
mod cleanups;
mod eviction;
mod host;
#[cfg(feature = "simulation")]
mod kept;
mod local_storage;
mod pending_admissions;
mod pod_syncer;
mod resize;
mod run;
mod run_once;
mod sessions;
mod sync_handler;
mod sync_loop;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

pub use bootstrap::{Bootstrap, start_kubelet};
pub use run_once::RunPodResult;
pub use sync_handler::SyncHandler;

use self::pending_admissions::PendingAdmissions;
use crate::active_deadline::ActiveDeadlineHandler;
use crate::admission::Admission;
use crate::allocation::{self, resource_info_for_pod};
use crate::cm::ContainerManager;
use crate::config::SourcesReady;
use crate::eviction::{EvictionConfig, EvictionManager};
use crate::image_gc::{ImageGcManager, ImageGcPolicy};
use crate::kuberuntime::{
    DnsConfigurer, ImageManager, ImageManagerOptions, KubeGenericRuntimeManager, RuntimeOptions, RuntimePod,
};
use crate::lifecycle::HandlerRunner;
use crate::logs::LogRotatePolicy;
use crate::mirror_pods::MirrorPods;
use crate::pod::{PodExt, PodUid, phase};
use crate::pod_cache::{PodCache, ProviderName};
use crate::pod_manager::PodManager;
use crate::pod_startup::PodStartupLatencyTracker;
use crate::pod_workers::{PodSyncer, PodWorkers, PodWorkersOptions};
use crate::ports::{
    ApiServer, EventSink, MirrorClient, NodeUsageSource, ObjectReader, ProbeTransport, StatusSink, Volumes,
};
use crate::prober::{self, ProbeResults, Prober};
use crate::providers::Providers;
use crate::reason_cache::ReasonCache;
use crate::recorder::Recorder;
use crate::runtime_state::RuntimeState;
use crate::stats::{StatsProvider, VolumeStats};
use crate::status::{PodDeletionSafetyProvider, StatusInput, StatusManager, generate_api_pod_status};
use crate::work_queue::WorkQueue;

/// Pods to look at that wait for the sync loop.
const PLEG_BUFFER: usize = 1000;

/// Everything that the kubelet is told about how to be.
#[derive(Clone, Debug)]
pub struct KubeletOptions {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// `maxPods`.
    pub max_pods: usize,
    /// Periods of the pod workers.
    pub workers: PodWorkersOptions,
    /// How names resolve in pods.
    pub dns: DnsConfigurer,
    /// The runtime manager's settings.
    pub runtime: RuntimeOptions,
    /// The image manager's settings.
    pub images: ImageManagerOptions,
    /// When unused images are removed; none never removes any.
    pub image_gc: Option<ImageGcPolicy>,
    /// When container logs are rotated; none never rotates any.
    pub log_rotation: Option<LogRotatePolicy>,
    /// When pods are evicted.
    pub eviction: EvictionConfig,
    /// How long a measured volume is not measured again (`volumeStatsAggPeriod`); none measures no volumes.
    pub volume_stats_period: Option<Duration>,
}

/// What the kubelet works with: the world behind its ports (upstream: `Dependencies`).
pub struct Dependencies {
    /// Who runs containers.
    pub providers: Providers,
    /// Who keeps the control groups of Linux pods; none where they have none of their own.
    pub container_manager: Option<Arc<ContainerManager>>,
    /// Where statuses go.
    pub status_sink: Arc<dyn StatusSink>,
    /// Who makes the mirrors of static pods; none without an apiserver.
    pub mirror_client: Option<Arc<dyn MirrorClient>>,
    /// Where Events go.
    pub event_sink: Arc<dyn EventSink>,
    /// ConfigMaps, Secrets, RuntimeClasses, this node.
    pub objects: Arc<dyn ObjectReader>,
    /// Volumes.
    pub volumes: Arc<dyn Volumes>,
    /// What is remembered of pods' resources.
    pub resources: allocation::States,
    /// How probes and hooks reach containers.
    pub probe_transport: Arc<dyn ProbeTransport>,
    /// The API on 10250; none serves none.
    pub server: Option<Arc<dyn ApiServer>>,
    /// What the node uses; none evicts no pods for it.
    pub node_usage: Option<Arc<dyn NodeUsageSource>>,
    /// The pod resources socket; none serves none.
    pub pod_resources: Option<Arc<dyn ApiServer>>,
}

/// The kubelet.
pub struct Kubelet {
    options: KubeletOptions,
    pod_manager: Arc<PodManager>,
    pod_cache: Arc<PodCache>,
    pod_workers: Arc<PodWorkers>,
    status_manager: Arc<StatusManager>,
    mirror_pods: Arc<MirrorPods>,
    probe_manager: Arc<prober::Manager>,
    probe_results: Arc<ProbeResults>,
    /// Results of probes that have changed; the sync loop takes it.
    probe_updates: Mutex<Option<mpsc::Receiver<prober::Update>>>,
    runtime: KubeGenericRuntimeManager,
    runtime_state: Arc<RuntimeState>,
    providers: Providers,
    container_manager: Option<Arc<ContainerManager>>,
    stats: StatsProvider,
    volume_stats: Option<VolumeStats>,
    startup: Arc<PodStartupLatencyTracker>,
    reason_cache: ReasonCache,
    admission: Admission,
    pending_admissions: PendingAdmissions,
    allocation_manager: allocation::Manager,
    active_deadlines: ActiveDeadlineHandler,
    eviction: EvictionManager,
    node_usage: Option<Arc<dyn NodeUsageSource>>,
    /// Where images of which provider are.
    image_mounts: Mutex<HashMap<ProviderName, Vec<PathBuf>>>,
    /// Made when it is needed first: it tells of the node, which has to be known.
    image_gc: OnceLock<ImageGcManager>,
    objects: Arc<dyn ObjectReader>,
    volumes: Arc<dyn Volumes>,
    recorder: Recorder,
    work_queue: Arc<WorkQueue>,
    sources_ready: SourcesReady,
    server: Option<Arc<dyn ApiServer>>,
    pod_resources: Option<Arc<dyn ApiServer>>,
    /// Something that the node's status shows may have changed.
    node_changed: watch::Sender<()>,
    /// Pods of which something may be removed.
    garbage: broadcast::Sender<PodUid>,
    /// When the sync loop began its last round.
    sync_loop_entered: Mutex<Option<Instant>>,
}

impl Kubelet {
    /// Puts a kubelet together (`NewMainKubelet`). Nothing runs yet.
    pub fn new(options: KubeletOptions, deps: Dependencies, sources_ready: SourcesReady) -> Arc<Self> {
        let recorder = Recorder::new(deps.event_sink);
        let pod_cache = Arc::new(PodCache::default());
        let work_queue = Arc::new(WorkQueue::default());
        let startup = Arc::new(PodStartupLatencyTracker::default());
        let images = ImageManager::new(recorder.clone(), deps.objects.clone(), options.images.clone())
            .with_startup_tracker(startup.clone());
        let pod_manager = Arc::new(PodManager::default());
        let status_manager = Arc::new(StatusManager::new(deps.status_sink, pod_manager.clone()));
        let mirror_pods = MirrorPods::new(deps.mirror_client, pod_manager.clone(), deps.objects.clone());
        let probe_results = Arc::new(ProbeResults::default());
        let (probe_manager, probe_updates) = prober::Manager::new(
            probe_results.clone(),
            status_manager.clone(),
            pod_cache.clone(),
            Prober::new(deps.probe_transport.clone(), deps.providers.clone(), recorder.clone()),
        );
        let runtime = KubeGenericRuntimeManager::new(
            deps.providers.clone(),
            pod_cache.clone(),
            recorder.clone(),
            images,
            deps.volumes.clone(),
            deps.objects.clone(),
            options.dns.clone(),
            probe_results.clone(),
            HandlerRunner::new(deps.probe_transport, recorder.clone()),
            deps.resources.actuated,
            RuntimeOptions { node_ips: options.node_ips.clone(), ..options.runtime.clone() },
        )
        .with_container_manager(deps.container_manager.clone());
        let allocation_manager =
            allocation::Manager::new(deps.resources.allocated, Arc::default(), recorder.clone());
        let active_deadlines = ActiveDeadlineHandler::new(status_manager.clone(), recorder.clone());
        Arc::new_cyclic(|me: &std::sync::Weak<Self>| {
            let syncer: std::sync::Weak<dyn PodSyncer> = me.clone();
            let (cache, queue) = (pod_cache.clone(), work_queue.clone());
            Self {
                pod_workers: Arc::new(PodWorkers::new(syncer, cache, queue, options.workers)),
                admission: Admission::new(deps.volumes.clone(), options.max_pods)
                    .with_apparmor(options.runtime.linux.has_apparmor),
                pending_admissions: PendingAdmissions::default(),
                allocation_manager,
                active_deadlines,
                eviction: EvictionManager::new(options.eviction.clone()),
                node_usage: deps.node_usage,
                image_mounts: Mutex::default(),
                image_gc: OnceLock::new(),
                status_manager,
                probe_manager: Arc::new(probe_manager),
                probe_results,
                probe_updates: Mutex::new(Some(probe_updates)),
                runtime_state: Arc::default(),
                pod_manager,
                mirror_pods: Arc::new(mirror_pods),
                startup,
                stats: StatsProvider::new(deps.providers.clone(), pod_cache.clone()),
                volume_stats: options
                    .volume_stats_period
                    .map(|period| VolumeStats::new(deps.volumes.clone(), period)),
                reason_cache: ReasonCache::default(),
                providers: deps.providers,
                container_manager: deps.container_manager,
                objects: deps.objects,
                volumes: deps.volumes,
                server: deps.server,
                pod_resources: deps.pod_resources,
                node_changed: watch::Sender::new(()),
                garbage: broadcast::Sender::new(PLEG_BUFFER),
                sync_loop_entered: Mutex::default(),
                options,
                pod_cache,
                runtime,
                recorder,
                work_queue,
                sources_ready,
            }
        })
    }

    /// Health of the providers.
    pub fn runtime_state(&self) -> &Arc<RuntimeState> {
        &self.runtime_state
    }

    /// Wakes up when something that the node's status shows may have changed.
    pub fn node_changed(&self) -> watch::Receiver<()> {
        self.node_changed.subscribe()
    }

    /// The status that the API should show now, made from what the runtimes have (`generateAPIPodStatus`).
    async fn generate_api_pod_status(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        is_terminal: bool,
    ) -> PodStatus {
        let uid = pod.uid();
        let runtime =
            &*self.runtime.with_termination_messages(runtime, &self.status_manager.status_before(pod)).await;
        let old = self.status_manager.status_before(pod);
        let resizes = self.allocation_manager.conditions();
        if is_terminal {
            resizes.clear_in_progress(&uid);
            resizes.clear_pending(&uid);
        }
        let input = StatusInput {
            runtime,
            old: &old,
            is_terminal,
            reasons: &self.reason_cache,
            probes: &self.probe_results,
            host_ips: &self.options.node_ips,
            actuated: &self.runtime.actuated().pod(&uid).unwrap_or_else(|| resource_info_for_pod(pod)),
            resize_conditions: &resizes.get(&uid),
            eviction: self.active_deadlines.should_evict(pod),
        };
        generate_api_pod_status(pod, &input)
    }

    /// Generates the status of a pod anew and sets it. Says whether the pod has come to its own end.
    async fn refresh_status(&self, pod: &Arc<Pod>, runtime: &RuntimePod, is_terminal: bool) -> bool {
        let status = self.generate_api_pod_status(pod, runtime, is_terminal).await;
        let ended = phase::is_terminal(status.phase.as_deref().unwrap_or_default());
        self.set_pod_status(pod, status);
        ended
    }

    /// Sets the status of a pod. Its probes look at it at once: they follow the start and the end of its containers.
    fn set_pod_status(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.startup.status_set(&pod.uid(), &status);
        self.status_manager.set_pod_status(pod, status);
        self.probe_manager.pod_status_set(&pod.uid());
    }

    /// The node, as Events name it (`nodeRefWithUID`).
    fn node_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.options.node_name.clone()),
            uid: self.objects.node().and_then(|node| node.metadata.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// How long the sync loop may sleep before it counts as stuck.
    fn resync_interval(&self) -> Duration {
        self.options.workers.resync_interval
    }
}

impl PodDeletionSafetyProvider for Kubelet {
    fn pod_could_have_running_containers(&self, uid: &str) -> bool {
        self.pod_workers.could_have_running_containers(uid)
    }
}
