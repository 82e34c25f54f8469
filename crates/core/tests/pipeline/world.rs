//! A kubelet in a world of fakes: providers in memory, and an apiserver that is a map of pods.

mod volumes;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::allocation::States;
use coracle_core::clock;
use coracle_core::cm::ContainerManager;
use coracle_core::config::{PodConfig, PodUpdate};
use coracle_core::eviction::EvictionConfig;
use coracle_core::kubelet::{Dependencies, Kubelet, KubeletOptions, start_kubelet};
use coracle_core::kuberuntime::{DnsConfigurer, ImageManagerOptions, RuntimeOptions};
use coracle_core::machine::{FileSystem, NodeUsage};
use coracle_core::pod::{PodExt, PodUid};
use coracle_core::pod_workers::PodWorkersOptions;
use coracle_core::ports::{
    ApiError, EventRecord, EventSink, GrpcCheck, HookError, HttpGet, MirrorClient, NodeUsageSource,
    ObjectKey, ObjectKind, ObjectReader, PodSource, ProbeOutcome, ProbeTransport, SourceKind, SourceUpdate,
    StatusSink, StatusUpdate, TcpConnect,
};
use coracle_core::providers::{Providers, RegisteredProvider};
use coracle_core::recorder::Recorder;
use coracle_provider::fake::FakeProvider;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, PodSpec, PodStatus, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

/// The apiserver, as far as the kubelet sees it.
pub struct FakeApi {
    pods: Mutex<BTreeMap<PodUid, Arc<Pod>>>,
    watch: broadcast::Sender<SourceUpdate>,
    pub patches: Mutex<Vec<(String, PodStatus)>>,
    pub events: Mutex<Vec<EventRecord>>,
    objects: broadcast::Sender<ObjectKey>,
    /// Volumes of pods cannot be mounted while this says why.
    pub mount_error: Mutex<Option<String>>,
    pub patch_error: Mutex<Option<ApiError>>,
    /// How many deletions of pods are answered as if there were no such pod.
    pub deletes_unheard: Mutex<usize>,
    /// This node; none before it is registered.
    pub node: Mutex<Option<Arc<Node>>>,
    /// This node where it is asked for anew; as seen last if there is nothing here.
    pub fresh_node: Mutex<Option<Arc<Node>>>,
    /// Mirror pods that were made.
    pub mirrors_created: Mutex<usize>,
    mounted: Mutex<HashMap<String, usize>>,
    /// Bytes that empty directories have, by volume.
    pub used_bytes: Mutex<HashMap<String, u64>>,
    /// Hosts files, by pod.
    pub hosts_files: Mutex<HashMap<String, String>>,
    /// Where containers were told to leave a message, and what is there.
    pub termination_logs: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    /// The pods whose volumes were measured, each time.
    pub measured_pods: Mutex<Vec<String>>,
}

impl FakeApi {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            pods: Mutex::default(),
            watch: broadcast::channel(1024).0,
            patches: Mutex::default(),
            events: Mutex::default(),
            objects: broadcast::channel(16).0,
            mount_error: Mutex::default(),
            patch_error: Mutex::default(),
            deletes_unheard: Mutex::default(),
            node: Mutex::default(),
            fresh_node: Mutex::default(),
            mirrors_created: Mutex::default(),
            mounted: Mutex::default(),
            used_bytes: Mutex::default(),
            hosts_files: Mutex::default(),
            termination_logs: Mutex::default(),
            measured_pods: Mutex::default(),
        })
    }

    pub fn put(&self, pod: Pod) {
        let pod = Arc::new(pod);
        self.pods.lock().insert(pod.uid(), pod.clone());
        let _ = self.watch.send(SourceUpdate::Apply(pod));
    }

    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods.lock().get(uid).cloned()
    }

    pub fn get_by_name(&self, name: &str) -> Option<Arc<Pod>> {
        self.pods.lock().values().find(|pod| pod.name() == name).cloned()
    }

    pub fn object_changed(&self, name: &str) {
        let key = ObjectKey { kind: ObjectKind::ConfigMap, namespace: "ns".into(), name: name.into() };
        let _ = self.objects.send(key);
    }

    pub fn reasons(&self) -> Vec<Cow<'static, str>> {
        self.events.lock().iter().map(|e| e.reason.clone()).collect()
    }

    pub fn mounted_pods(&self) -> usize {
        self.mounted.lock().len()
    }
}

#[async_trait]
impl PodSource for FakeApi {
    fn kind(&self) -> SourceKind {
        SourceKind::Api
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        let mut watch = self.watch.subscribe();
        let all = self.pods.lock().values().cloned().collect();
        let mut next = SourceUpdate::Set(all);
        while updates.send(next).await.is_ok() {
            match watch.recv().await {
                Ok(update) => next = update,
                Err(_) => return,
            }
        }
    }
}

#[async_trait]
impl StatusSink for FakeApi {
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if let Some(error) = self.patch_error.lock().clone() {
            return Err(error);
        }
        let Some(pod) = self.get(&update.pod.uid()) else {
            return Err(ApiError::NotFound("pod not found".into()));
        };
        self.patches.lock().push((pod.uid().to_string(), (*update.status).clone()));
        self.put(Pod { status: Some((*update.status).clone()), ..(*pod).clone() });
        Ok(())
    }

    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        {
            let mut unheard = self.deletes_unheard.lock();
            if *unheard > 0 {
                *unheard -= 1;
                return Err(ApiError::NotFound("pod not found".into()));
            }
        }
        if let Some(pod) = self.pods.lock().remove(&pod.uid()) {
            let _ = self.watch.send(SourceUpdate::Delete(pod));
        }
        Ok(())
    }
}

#[async_trait]
impl MirrorClient for FakeApi {
    async fn create_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if self.get_by_name(mirror.name()).is_some() {
            return Err(ApiError::Conflict("there is one".into()));
        }
        let mut created = self.mirrors_created.lock();
        *created += 1;
        let mut pod = mirror.clone();
        pod.metadata.uid = Some(format!("mirror-{created}"));
        pod.metadata.generation = Some(1);
        self.put(pod);
        Ok(())
    }

    async fn delete_mirror_pod(&self, mirror: &Pod) -> Result<(), ApiError> {
        self.delete_pod(mirror).await
    }
}

/// A source that says what a test wants, and nothing before.
pub struct Listed {
    kind: SourceKind,
    pods: watch::Sender<Option<Vec<Arc<Pod>>>>,
}

impl Listed {
    fn new(kind: SourceKind) -> Arc<Self> {
        Arc::new(Self { kind, pods: watch::Sender::new(Some(Vec::new())) })
    }

    /// From now on there are these pods; `None` for a source that has yet to speak.
    pub fn set(&self, pods: Option<Vec<Arc<Pod>>>) {
        self.pods.send_replace(pods);
    }
}

#[async_trait]
impl PodSource for Listed {
    fn kind(&self) -> SourceKind {
        self.kind
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        let mut pods = self.pods.subscribe();
        loop {
            let now = pods.borrow_and_update().clone();
            if let Some(now) = now
                && updates.send(SourceUpdate::Set(now)).await.is_err()
            {
                return;
            }
            if pods.changed().await.is_err() {
                return;
            }
        }
    }
}

impl EventSink for FakeApi {
    fn record(&self, event: EventRecord) {
        self.events.lock().push(event);
    }
}

#[async_trait]
impl ObjectReader for FakeApi {
    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        Err(ApiError::NotFound(format!("configmap {name:?} not found")))
    }
    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(ApiError::NotFound(format!("secret {name:?} not found")))
    }
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Ok(Arc::new(RuntimeClass { handler: name.into(), ..RuntimeClass::default() }))
    }
    async fn services(
        &self,
        _namespace: &str,
    ) -> Result<Vec<Arc<k8s_openapi::api::core::v1::Service>>, ApiError> {
        Ok(Vec::new())
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().clone()
    }
    async fn fetch_node(&self) -> Result<Option<Arc<Node>>, ApiError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        Ok(self.fresh_node.lock().clone().or_else(|| self.node()))
    }
    fn register_pod(&self, _pod: &Pod) {}
    fn unregister_pod(&self, _pod: &Pod) {}
    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.objects.subscribe()
    }
}

/// The network, as far as probes and hooks see it. Paths, and `port` for the rest, answer as they are told to; without
/// that, they are well.
#[derive(Default)]
pub struct FakeNetwork {
    outcomes: Mutex<HashMap<String, ProbeOutcome>>,
    /// When each was asked, in order.
    pub asked: Mutex<Vec<(tokio::time::Instant, String)>>,
    /// Where hooks went to.
    pub hook_hosts: Mutex<Vec<String>>,
    /// Hooks take this long.
    pub hook_delay: Mutex<Duration>,
}

impl FakeNetwork {
    pub fn set(&self, path: &str, outcome: ProbeOutcome) {
        self.outcomes.lock().insert(path.to_owned(), outcome);
    }

    pub fn fail(&self, path: &str) {
        self.set(path, ProbeOutcome::Failure("HTTP probe failed with statuscode: 503".into()));
    }

    pub fn succeed(&self, path: &str) {
        self.set(path, ProbeOutcome::Success(String::new()));
    }

    pub fn asked(&self, path: &str) -> usize {
        self.asked.lock().iter().filter(|(_, asked)| asked == path).count()
    }

    fn answer(&self, path: &str) -> ProbeOutcome {
        self.asked.lock().push((tokio::time::Instant::now(), path.to_owned()));
        self.outcomes.lock().get(path).cloned().unwrap_or_else(|| ProbeOutcome::Success(String::new()))
    }
}

#[async_trait]
impl ProbeTransport for FakeNetwork {
    async fn http(&self, request: &HttpGet, _timeout: Duration) -> ProbeOutcome {
        self.answer(&request.path)
    }
    async fn tcp(&self, request: &TcpConnect, _timeout: Duration) -> ProbeOutcome {
        self.answer(&format!("tcp {}", request.port))
    }
    async fn grpc(&self, request: &GrpcCheck, _timeout: Duration) -> ProbeOutcome {
        self.answer(&format!("grpc {} {}", request.port, request.service))
    }
    async fn http_hook(&self, request: &HttpGet) -> Result<(), HookError> {
        let answer = self.answer(&request.path);
        self.hook_hosts.lock().push(format!("{}:{}", request.host, request.port));
        let delay = *self.hook_delay.lock();
        tokio::time::sleep(delay).await;
        match answer {
            ProbeOutcome::Failure(message) => Err(HookError::Failed(message)),
            _ => Ok(()),
        }
    }
}

/// What the node uses, as tests want it; images are on a disk of their own.
#[derive(Default)]
pub struct FakeNode {
    pub usage: Mutex<NodeUsage>,
    pub images: Mutex<FileSystem>,
}

impl NodeUsageSource for FakeNode {
    fn node_usage(&self) -> Result<NodeUsage, String> {
        Ok(self.usage.lock().clone())
    }
    fn file_system(&self, _folder: &Path) -> Result<FileSystem, String> {
        Ok(*self.images.lock())
    }
}

/// Everything, with one or two providers: `fast` is the default one, `slow` serves its RuntimeClass.
pub struct World {
    pub api: Arc<FakeApi>,
    pub fast: Arc<FakeProvider>,
    pub slow: Arc<FakeProvider>,
    pub network: Arc<FakeNetwork>,
    /// Static pods of files.
    pub files: Arc<Listed>,
    /// Static pods of URLs.
    pub urls: Arc<Listed>,
    /// When pods are evicted.
    pub eviction: EvictionConfig,
    /// What the node uses.
    pub node: Arc<FakeNode>,
    /// Who keeps control groups of Linux pods.
    pub container_manager: Option<Arc<ContainerManager>>,
    agent: Option<(Arc<Kubelet>, JoinSet<()>, JoinSet<()>)>,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        let mut world = Self::without_agent();
        world.start_agent();
        world
    }

    pub fn without_agent() -> Self {
        Self {
            api: FakeApi::new(),
            fast: FakeProvider::new("fast", clock::now),
            slow: FakeProvider::new("slow", clock::now),
            network: Arc::default(),
            files: Listed::new(SourceKind::File),
            urls: Listed::new(SourceKind::Http),
            eviction: EvictionConfig::default(),
            node: Arc::default(),
            container_manager: None,
            agent: None,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn start_agent(&mut self) {
        let (kubelet, updates, sources) = self.make_agent();
        let tasks = start_kubelet(&kubelet, updates);
        self.agent = Some((kubelet, tasks, sources));
    }

    /// An agent that does nothing yet.
    pub fn make_agent(&self) -> (Arc<Kubelet>, mpsc::Receiver<PodUpdate>, JoinSet<()>) {
        let registered = |provider: &Arc<FakeProvider>, name: &str| RegisteredProvider {
            provider: provider.clone(),
            handlers: vec![name.to_owned()],
            relist_period: Duration::from_secs(10),
        };
        let options = KubeletOptions {
            node_name: "node".into(),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
            max_pods: 5,
            workers: PodWorkersOptions::default(),
            dns: DnsConfigurer::default(),
            runtime: RuntimeOptions {
                pod_logs_dir: self.folder.path().to_owned(),
                container_logs_dir: None,
                ..RuntimeOptions::default()
            },
            images: ImageManagerOptions::default(),
            image_gc: None,
            log_rotation: None,
            eviction: self.eviction.clone(),
            volume_stats_period: Some(Duration::from_secs(60)),
        };
        let deps = Dependencies {
            providers: Providers::new(vec![registered(&self.fast, "fast"), registered(&self.slow, "slow")]),
            container_manager: self.container_manager.clone(),
            status_sink: self.api.clone(),
            mirror_client: Some(self.api.clone()),
            event_sink: self.api.clone(),
            objects: self.api.clone(),
            volumes: self.api.clone(),
            resources: States::open(self.folder.path()).unwrap(),
            probe_transport: self.network.clone(),
            server: None,
            node_usage: Some(self.node.clone()),
            pod_resources: None,
        };
        let config = PodConfig::new(
            vec![self.api.clone(), self.files.clone(), self.urls.clone()],
            Recorder::new(self.api.clone()),
        );
        let kubelet = Kubelet::new(options, deps, config.sources_ready());
        let (updates, sources) = config.start();
        (kubelet, updates, sources)
    }

    /// Writes the log of a container, in CRI's format.
    pub fn write_log(&self, uid: &str, container: &str, restarts: u32, content: &str) {
        let folder = self.folder.path().join(format!("ns_{uid}_{uid}")).join(container);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{restarts}.log")), content).unwrap();
    }

    pub fn kubelet(&self) -> &Kubelet {
        &self.agent.as_ref().expect("the agent runs").0
    }

    /// As kill -9 does it, to everything but the providers.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    pub fn create(&self, uid: &str, spec: Value) {
        let pod = json!({
            "metadata": {"uid": uid, "namespace": "ns", "name": uid, "generation": 1},
            "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}
        });
        self.api.put(serde_json::from_value(pod).unwrap());
    }

    /// Changes the spec of a pod.
    pub fn update(&self, uid: &str, change: impl FnOnce(&mut PodSpec)) {
        let mut pod = (*self.api.get(uid).unwrap()).clone();
        change(pod.spec.as_mut().unwrap());
        pod.metadata.generation = Some(pod.metadata.generation.unwrap_or(1) + 1);
        self.api.put(pod);
    }

    /// What `kubectl delete` does to a pod that runs.
    pub fn delete(&self, uid: &str, grace: i64) {
        let pod = self.api.get(uid).unwrap();
        let mut pod = (*pod).clone();
        pod.metadata.deletion_timestamp = Some(Time(clock::now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        pod.metadata.generation = Some(pod.metadata.generation.unwrap_or(1) + 1);
        self.api.put(pod);
    }

    /// Somebody else changes a pod.
    pub fn change(&self, uid: &str, change: impl FnOnce(&mut Pod)) {
        let mut pod = (*self.api.get(uid).unwrap()).clone();
        change(&mut pod);
        self.api.put(pod);
    }

    /// `kubectl delete --force`: gone at once, without asking the node.
    pub fn force_delete(&self, uid: &str) {
        if let Some(pod) = self.api.pods.lock().remove(uid) {
            let _ = self.api.watch.send(SourceUpdate::Delete(pod));
        }
    }

    pub fn phase(&self, uid: &str) -> String {
        self.api.get(uid).map(|p| p.phase().to_owned()).unwrap_or_else(|| "gone".into())
    }

    pub fn restarts(&self, uid: &str) -> i32 {
        self.container(uid, |c| c.restart_count)
    }

    pub fn waiting(&self, uid: &str) -> String {
        self.container(uid, |c| {
            let waiting = c.state.as_ref().and_then(|s| s.waiting.clone());
            waiting.and_then(|w| w.reason).unwrap_or_default()
        })
    }

    fn container<T: Default>(
        &self,
        uid: &str,
        read: impl Fn(&k8s_openapi::api::core::v1::ContainerStatus) -> T,
    ) -> T {
        let pod = self.api.get(uid);
        let status = pod.as_ref().and_then(|p| p.pod_status().container_statuses.as_ref()?.first());
        status.map(read).unwrap_or_default()
    }

    pub fn condition(&self, uid: &str, kind: &str) -> String {
        let pod = self.api.get(uid).unwrap();
        let found = pod.pod_status().conditions.iter().flatten().find(|c| c.type_ == kind).cloned();
        found.map(|c| c.status).unwrap_or_default()
    }

    pub fn patches(&self, uid: &str) -> Vec<String> {
        let patches = self.api.patches.lock();
        patches.iter().filter(|(u, _)| u == uid).map(|(_, s)| s.phase.clone().unwrap_or_default()).collect()
    }

    /// Waits until something holds, at most ten minutes of the paused clock.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never: {what}; events: {:?}",
                self.api.reasons()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub fn one(policy: &str, image: &str) -> Value {
    json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}]})
}

pub fn on(class: &str, mut spec: Value) -> Value {
    spec["runtimeClassName"] = json!(class);
    spec
}
