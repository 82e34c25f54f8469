//! A kubelet and an apiserver to serve and ask.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::host::{ContainerLog, Counts, HostInterface, LogError, SyncLoopStuck};
use coracle_core::ports::{AccessReviewer, ApiError, Attributes, UserInfo};
use coracle_core::stats::{PodsUsage, UsageScope};
use coracle_provider::FsUsage;
use futures::FutureExt;
use futures::future::pending;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// A kubelet with the pods that it is given.
pub(crate) struct FakeHost {
    pub(crate) pods: Mutex<Vec<Arc<Pod>>>,
    pub(crate) sync_loop_stuck: Mutex<bool>,
    /// Gets a permit for each command that nobody waits for any longer.
    pub(crate) sessions_ended: Arc<Semaphore>,
    pub(crate) usage: Mutex<PodsUsage>,
    /// Where the runtime of the pod `elsewhere` forwards ports.
    pub(crate) runtime_url: Mutex<Option<String>>,
    /// The ports that the last client named.
    pub(crate) named_ports: Mutex<Vec<u16>>,
    logs: Mutex<HashMap<(String, bool), FakeLog>>,
}

/// The log of a container.
#[derive(Clone)]
pub(crate) struct FakeLog {
    path: PathBuf,
    ended: watch::Sender<bool>,
    readers: Arc<()>,
}

impl FakeLog {
    /// The container ends.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    fn open(&self) -> ContainerLog {
        let (mut ended, reader) = (self.ended.subscribe(), self.readers.clone());
        let ended = async move {
            let _reader = reader;
            _ = ended.wait_for(|ended| *ended).await;
        };
        ContainerLog { path: self.path.clone(), ended: ended.boxed() }
    }

    /// Waits until so many are reading.
    pub(crate) async fn until_readers(&self, expected: usize) {
        // One is the log's own, and one is the copy's in the host.
        let readers = || Arc::strong_count(&self.readers) - 2;
        let reached = async {
            while readers() != expected {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), reached)
            .await
            .unwrap_or_else(|_| panic!("{} readers instead of {expected}", readers()));
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self {
            pods: Mutex::default(),
            sync_loop_stuck: Mutex::default(),
            sessions_ended: Arc::new(Semaphore::new(0)),
            usage: Mutex::default(),
            runtime_url: Mutex::default(),
            named_ports: Mutex::default(),
            logs: Mutex::default(),
        }
    }
}

impl FakeHost {
    /// A pod `ns/pod` with one container `c`, whose log is this file.
    pub(crate) fn with_log(path: impl Into<PathBuf>) -> (Arc<Self>, FakeLog) {
        let host = Self::default();
        *host.pods.lock() = vec![Arc::new(pod("pod"))];
        let log = FakeLog { path: path.into(), ended: watch::Sender::new(false), readers: Arc::default() };
        host.logs.lock().insert(("c".into(), false), log.clone());
        (Arc::new(host), log)
    }

    pub(crate) fn add_log(&self, container: &str, previous: bool, path: impl Into<PathBuf>) {
        let log = FakeLog { path: path.into(), ended: watch::Sender::new(true), readers: Arc::default() };
        self.logs.lock().insert((container.into(), previous), log);
    }
}

/// A pod in the namespace `ns`.
pub(crate) fn pod(name: &str) -> Pod {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}")},
        "spec": {
            "containers": [{"name": "c"}],
            "initContainers": [{"name": "init"}],
            "ephemeralContainers": [{"name": "debugger"}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    });
    serde_json::from_value(pod).unwrap()
}

#[async_trait]
impl HostInterface for FakeHost {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().clone()
    }

    fn active_pods(&self) -> Vec<Arc<Pod>> {
        self.pods()
    }

    fn pod_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.lock();
        let is_it = |pod: &&Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        pods.iter().find(is_it).cloned()
    }

    async fn container_log(
        &self,
        _namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerLog, LogError> {
        let (container, pod) = (container.to_owned(), pod.to_owned());
        match self.logs.lock().get(&(container.clone(), previous)) {
            Some(log) => Ok(log.open()),
            None if previous => Err(LogError::PreviousNotFound { container, pod }),
            None => Err(LogError::NotAvailable { container, pod }),
        }
    }

    fn sync_loop_health_check(&self) -> Result<(), SyncLoopStuck> {
        if *self.sync_loop_stuck.lock() { Err(SyncLoopStuck) } else { Ok(()) }
    }

    fn running_pods(&self) -> Vec<Pod> {
        let running = |pod: &Arc<Pod>| Pod { metadata: pod.metadata.clone(), ..Pod::default() };
        self.pods.lock().iter().map(running).collect()
    }

    async fn pods_usage(&self, _scope: UsageScope) -> PodsUsage {
        self.usage.lock().clone()
    }

    async fn image_fs_usage(&self) -> Vec<FsUsage> {
        let usage = FsUsage {
            used_bytes: 10,
            inodes_used: 1,
            capacity_bytes: 100,
            available_bytes: 50,
            ..FsUsage::default()
        };
        vec![usage]
    }

    fn counts(&self) -> Counts {
        Counts {
            running_pods: 2,
            containers: [("running", 3), ("exited", 1)].into(),
            desired_pods: (4, 1),
            active_pods: (3, 1),
            mirror_pods: 1,
        }
    }
}

/// How an apiserver answers.
#[derive(Clone, Copy, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    Down,
    Hanging,
}

/// An apiserver that knows the token `good` of the user `monitor`, and what users may do: `admin` everything,
/// `monitor` read what is fine-grained, `classic` everything by way of the subresource `proxy`, and `only x` what takes the
/// subresource `x`.
#[derive(Default)]
pub(crate) struct FakeReviewer {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) token_reviews: AtomicUsize,
    pub(crate) access_reviews: Mutex<Vec<(UserInfo, Attributes)>>,
}

impl FakeReviewer {
    async fn answer(&self) -> Result<(), ApiError> {
        let mood = *self.mood.lock();
        match mood {
            Mood::Well => Ok(()),
            Mood::Down => Err(ApiError::Unavailable("connection refused".into())),
            Mood::Hanging => pending().await,
        }
    }
}

#[async_trait]
impl AccessReviewer for FakeReviewer {
    async fn review_token(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        self.token_reviews.fetch_add(1, Ordering::SeqCst);
        self.answer().await?;
        Ok((token == "good").then(|| UserInfo { username: "monitor".into(), ..UserInfo::default() }))
    }

    async fn review_access(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, ApiError> {
        self.access_reviews.lock().push((user.clone(), attributes.clone()));
        self.answer().await?;
        assert_eq!((attributes.resource.as_str(), attributes.name.as_str()), ("nodes", "node-1"));
        let is_reading = attributes.verb == "get";
        Ok(match user.username.as_str() {
            "admin" => true,
            "monitor" => {
                is_reading && ["pods", "healthz", "metrics"].contains(&attributes.subresource.as_str())
            }
            "classic" => attributes.subresource == "proxy",
            other => other.strip_prefix("only ") == Some(&attributes.subresource),
        })
    }
}
