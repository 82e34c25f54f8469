//! The PodResources socket, asked by clients of its protocols. The pods are those of upstream's `server_v1_test.go`, in short.

// Clippy's exception for tests ends at the test functions; what they share is a test as well.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::host::{ContainerLog, Counts, HostInterface, LogError, SyncLoopStuck};
use coracle_core::ports::ApiServer;
use coracle_core::sessions::{ContainerTarget, PodTarget, SessionError, Sessions};
use coracle_core::stats::{PodsUsage, UsageScope};
use coracle_nodeapi::PodResourcesServer;
use coracle_nodeapi::podresources_v1::pod_resources_lister_client::PodResourcesListerClient;
use coracle_nodeapi::podresources_v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, GetPodResourcesRequest,
    ListPodResourcesRequest, PodResources,
};
use coracle_nodeapi::podresources_v1alpha1 as alpha;
use coracle_nodeapi::podresources_v1alpha1::pod_resources_lister_client::PodResourcesListerClient as AlphaClient;
use coracle_provider::{FsUsage, PortConnection, SessionOptions, Stream};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Pods, of which those in the phase `Running` are active.
struct Host(Vec<Arc<Pod>>);

#[async_trait]
impl HostInterface for Host {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.clone()
    }

    fn active_pods(&self) -> Vec<Arc<Pod>> {
        let is_active = |pod: &&Arc<Pod>| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running");
        self.0.iter().filter(is_active).cloned().collect()
    }

    fn pod_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let is_it = |pod: &&Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.0.iter().find(is_it).cloned()
    }

    async fn container_log(&self, _: &str, _: &str, _: &str, _: bool) -> Result<ContainerLog, LogError> {
        unreachable!("nobody asks for logs")
    }

    fn sync_loop_health_check(&self) -> Result<(), SyncLoopStuck> {
        unreachable!("nobody asks for health")
    }

    fn running_pods(&self) -> Vec<Pod> {
        unreachable!("nobody asks for what runs")
    }

    async fn pods_usage(&self, _: UsageScope) -> PodsUsage {
        unreachable!("nobody asks for statistics")
    }

    async fn image_fs_usage(&self) -> Vec<FsUsage> {
        unreachable!("nobody asks for statistics")
    }

    fn counts(&self) -> Counts {
        unreachable!("nobody asks for metrics")
    }
}

#[async_trait]
impl Sessions for Host {
    async fn exec(
        &self,
        _: &ContainerTarget,
        _: &[String],
        _: SessionOptions,
    ) -> Result<Stream, SessionError> {
        unreachable!("nobody asks for sessions")
    }

    async fn attach(&self, _: &ContainerTarget, _: SessionOptions) -> Result<Stream, SessionError> {
        unreachable!("nobody asks for sessions")
    }

    async fn port_forward_url(&self, _: &PodTarget, _: &[u16]) -> Result<Option<String>, SessionError> {
        unreachable!("nobody asks for sessions")
    }

    async fn port_forward(&self, _: &PodTarget, _: u16) -> Result<PortConnection, SessionError> {
        unreachable!("nobody asks for sessions")
    }

    async fn run_in_container(&self, _: &ContainerTarget, _: &[String]) -> Result<Vec<u8>, SessionError> {
        unreachable!("nobody asks for sessions")
    }
}

fn pod(name: &str, phase: &str, init: &Value) -> Arc<Pod> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": "ns", "name": name, "uid": name },
        "spec": { "containers": [{ "name": "one" }, { "name": "two" }], "initContainers": init },
        "status": { "phase": phase },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A socket that is served, until it is dropped.
struct Served {
    root: tempfile::TempDir,
    shutdown: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Served {
    fn start() -> Self {
        let init = json!([{ "name": "init" }, { "name": "sidecar", "restartPolicy": "Always" }]);
        let host = Host(vec![
            pod("plain", "Running", &json!([])),
            pod("init", "Running", &init),
            pod("over", "Succeeded", &init),
        ]);
        let (root, shutdown) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let server = PodResourcesServer::bind(root.path(), shutdown.clone()).unwrap();
        let task = AbortOnDropHandle::new(tokio::spawn(async move { server.serve(Arc::new(host)).await }));
        Self { root, shutdown, task }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("pod-resources/kubelet.sock")
    }

    fn channel(&self) -> Channel {
        let path = self.path();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
    }
}

/// A pod, and its containers.
fn names(pod: &PodResources) -> (String, Vec<&str>) {
    for container in &pod.containers {
        assert!(container.devices.is_empty() && container.cpu_ids.is_empty() && container.memory.is_empty());
        assert!(container.dynamic_resources.is_empty());
    }
    (format!("{}/{}", pod.namespace, pod.name), pod.containers.iter().map(|it| it.name.as_str()).collect())
}

#[tokio::test]
async fn active_pods_are_listed_with_sidecars_and_main_containers() {
    let served = Served::start();
    let mut client = PodResourcesListerClient::new(served.channel());
    let list = client.list(ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
    let expected =
        [("ns/plain".to_owned(), vec!["one", "two"]), ("ns/init".to_owned(), vec!["sidecar", "one", "two"])];
    assert_eq!(list.iter().map(names).collect::<Vec<_>>(), expected);

    let allocatable = client.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap();
    assert_eq!(allocatable.into_inner(), AllocatableResourcesResponse::default());

    let mut get = async |name: &str| {
        let request = GetPodResourcesRequest { pod_name: name.into(), pod_namespace: "ns".into() };
        client.get(request).await.map(|answer| answer.into_inner().pod_resources.unwrap())
    };
    assert_eq!(names(&get("over").await.unwrap()), ("ns/over".to_owned(), vec!["sidecar", "one", "two"]));
    let error = get("none").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "pod none in namespace ns not found"));
}

#[tokio::test]
async fn the_older_version_lists_all_pods_with_main_containers() {
    let served = Served::start();
    let mut client = AlphaClient::new(served.channel());
    let list = client.list(alpha::ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
    let names: Vec<_> = list.iter().map(|pod| (pod.name.as_str(), pod.containers.len())).collect();
    assert_eq!(names, [("plain", 2), ("init", 2), ("over", 2)]);
}

#[tokio::test]
async fn too_many_requests_are_refused_and_the_socket_ends_with_the_agent() {
    let mut served = Served::start();
    let client = PodResourcesListerClient::new(served.channel());
    let asks = (0..300).map(|_| {
        let mut client = client.clone();
        async move { client.list(ListPodResourcesRequest {}).await }
    });
    let answers = asks.collect::<JoinSet<_>>().join_all().await;
    let refused = answers.into_iter().find_map(Result::err).unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "rejected by rate limit"));
    served.shutdown.cancel();
    drop(client);
    (&mut served.task).await.unwrap();
    assert!(UnixStream::connect(served.path()).await.is_err());
}
