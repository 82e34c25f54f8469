//! The runtime manager and what it works with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ArtifactKind, ErrorKind, Provider};
use k8s_openapi::api::core::v1::Pod;

use super::dns::DnsConfigurer;
use super::gc::{ContainerGc, GcPolicy};
use super::image_manager::ImageManager;
use super::in_flight::InFlight;
use super::linux::LinuxOptions;
use super::pre_stop::PreStopHooks;
use super::runtime_pod::RuntimePod;
use crate::allocation::State;
use crate::backoff::Backoff;
use crate::cm::ContainerManager;
use crate::lifecycle::HandlerRunner;
use crate::pod::{PodExt, PodUid};
use crate::pod_cache::PodCache;
use crate::pod_workers::SyncError;
use crate::ports::{ObjectReader, Volumes};
use crate::prober::ProbeResults;
use crate::providers::Providers;
use crate::recorder::Recorder;

/// A container that ran this long without failing begins its crash-loop back-off anew.
const CRASH_LOOP_EXPIRY: Duration = Duration::from_secs(600);

/// Settings of the runtime manager.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// `podLogsDir`: container logs, a folder a pod.
    pub pod_logs_dir: PathBuf,
    /// Links to container logs under the names that log agents read; none makes no links.
    pub container_logs_dir: Option<PathBuf>,
    /// The node's own addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// Back-off after a container failed: the first one.
    pub crash_loop_initial: Duration,
    /// Back-off after a container failed: the longest.
    pub crash_loop_max: Duration,
    /// Which dead containers are kept.
    pub gc: GcPolicy,
    /// For pods of Linux containers.
    pub linux: LinuxOptions,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: Some("/var/log/containers".into()),
            node_ips: Vec::new(),
            crash_loop_initial: Duration::from_secs(10),
            crash_loop_max: Duration::from_secs(300),
            gc: GcPolicy::default(),
            linux: LinuxOptions::default(),
        }
    }
}

/// The runtime manager. Shared by all pod workers; holds no state of a pod but its back-off and running hooks.
pub struct KubeGenericRuntimeManager {
    pub(super) providers: Providers,
    pub(super) cache: Arc<PodCache>,
    pub(super) recorder: Recorder,
    pub(super) images: ImageManager,
    pub(super) volumes: Arc<dyn Volumes>,
    pub(super) objects: Arc<dyn ObjectReader>,
    pub(super) dns: DnsConfigurer,
    pub(super) crash_loop_back_off: Backoff,
    pub(super) probes: Arc<ProbeResults>,
    pub(super) handlers: HandlerRunner,
    pub(super) pre_stop_hooks: PreStopHooks,
    pub(super) container_gc: ContainerGc,
    pub(super) in_flight: InFlight,
    pub(super) actuated: State,
    pub(super) container_manager: Option<Arc<ContainerManager>>,
    pub(super) options: RuntimeOptions,
}

impl KubeGenericRuntimeManager {
    /// Puts a runtime manager together.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        providers: Providers,
        cache: Arc<PodCache>,
        recorder: Recorder,
        images: ImageManager,
        volumes: Arc<dyn Volumes>,
        objects: Arc<dyn ObjectReader>,
        dns: DnsConfigurer,
        probes: Arc<ProbeResults>,
        handlers: HandlerRunner,
        actuated: State,
        options: RuntimeOptions,
    ) -> Self {
        let in_flight = InFlight::new(cache.clone());
        let crash_loop_back_off =
            Backoff::new(options.crash_loop_initial, options.crash_loop_max, CRASH_LOOP_EXPIRY);
        let container_gc = ContainerGc {
            providers: providers.clone(),
            cache: cache.clone(),
            policy: options.gc.clone(),
            pod_logs_dir: options.pod_logs_dir.clone(),
            container_logs_dir: options.container_logs_dir.clone(),
        };
        Self {
            providers,
            cache,
            recorder,
            images,
            volumes,
            objects,
            dns,
            crash_loop_back_off,
            probes,
            handlers,
            pre_stop_hooks: PreStopHooks::default(),
            container_gc,
            in_flight,
            actuated,
            container_manager: None,
            options,
        }
    }

    /// Linux pods have control groups of their own, which it keeps.
    pub fn with_container_manager(self, container_manager: Option<Arc<ContainerManager>>) -> Self {
        Self { container_manager, ..self }
    }

    /// The handler that the pod's RuntimeClass names; empty without one (`getPodRuntimeHandler`).
    pub(super) async fn runtime_handler(&self, pod: &Pod) -> Result<String, coracle_provider::Error> {
        let Some(name) = pod.pod_spec().runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
            return Ok(String::new());
        };
        let class = self.objects.runtime_class(name).await.map_err(|error| {
            let kind = if error.is_not_found() { ErrorKind::InvalidArgument } else { ErrorKind::Unavailable };
            coracle_provider::Error::new(kind, format!("RuntimeClass {name:?}: {error}"))
        })?;
        Ok(class.handler.clone())
    }

    /// Who runs this pod, and the handler that it is asked for.
    pub async fn provider_for(
        &self,
        pod: &Pod,
    ) -> Result<(Arc<dyn Provider>, String), coracle_provider::Error> {
        let handler = self.runtime_handler(pod).await?;
        let provider = self.providers.for_handler(&handler).cloned().ok_or_else(|| {
            let served = self.providers.handlers().collect::<Vec<_>>().join(", ");
            coracle_provider::Error::invalid(format!(
                "no runtime for {handler:?} is configured; this node serves the handlers: {served}"
            ))
        })?;
        Ok((provider, handler))
    }

    /// What the runtime of this pod runs, unless its RuntimeClass has to be read to know.
    pub fn runs_without_asking(&self, pod: &Pod) -> Option<ArtifactKind> {
        let mut kinds = self.providers.iter().map(|registered| registered.provider.runs());
        let first = kinds.next()?;
        let has_class = pod.pod_spec().runtime_class_name.as_deref().is_some_and(|name| !name.is_empty());
        (!has_class || kinds.all(|kind| kind == first)).then_some(first)
    }

    /// What the runtimes have of a pod (`GetPodStatus`): from the cache, which every call and event writes at once.
    /// After a call without an answer the providers are asked, once what was under way has ended.
    pub async fn get_pod_status(&self, uid: &PodUid) -> Result<RuntimePod, SyncError> {
        if self.cache.is_stale(uid) {
            self.in_flight.settle(uid).await;
            for registered in self.providers.iter() {
                let provider = &registered.provider;
                match provider.list_pod(uid).await {
                    Ok(snapshot) => {
                        self.cache.replace_pod(provider.name(), uid, snapshot);
                    }
                    // A provider that is down and had nothing of the pod does not hold it up.
                    Err(_) if !self.cache.knows(provider.name(), uid) => {}
                    Err(error) => return Err(SyncError::failed(format!("{}: {error}", provider.name()))),
                }
            }
            self.cache.clear_stale(uid);
        }
        Ok(self.cache.get(uid))
    }

    /// A sync of this pod was dropped, or what it did is not what is there: the cache may be behind.
    pub fn distrust(&self, uid: &PodUid) {
        self.cache.distrust(uid);
    }

    /// Forgets what is kept of a pod: its back-off, and hooks of containers that it no longer has.
    pub fn forget(&self, uid: &str) {
        self.crash_loop_back_off.forget(uid);
        self.cache.clear_stale(uid);
        self.pre_stop_hooks.forget_pod(uid);
        self.images.forget(uid);
    }

    /// What is kept: back-off of containers and of images by keys that begin with the pod's UID, and hooks by pod.
    #[cfg(feature = "simulation")]
    pub(crate) fn kept(&self) -> [(&'static str, Vec<String>); 4] {
        [
            ("back-off of containers", self.crash_loop_back_off.keys()),
            ("back-off of images", self.images.keys()),
            ("preStop hooks", self.pre_stop_hooks.pod_uids()),
            ("changes in flight", self.in_flight.uids()),
        ]
    }

    /// Removes logs that nobody needs any more, and forgets what is over (`GarbageCollect`, apart from what providers have).
    pub async fn clean_up(&self, content_may_go: impl Fn(&str) -> bool) {
        self.actuated.retain(|uid| !content_may_go(uid));
        self.container_gc.clean_up_logs(content_may_go).await;
        self.gc_back_off();
    }

    /// Removes what is dead.
    pub fn container_gc(&self) -> &ContainerGc {
        &self.container_gc
    }

    /// Forgets back-off that has run out.
    fn gc_back_off(&self) {
        self.crash_loop_back_off.gc();
        self.images.gc_back_off();
    }
}
