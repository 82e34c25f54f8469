//! Which devices, processors and memory of the node belong to which container, for who monitors or schedules them
//! (upstream: `pkg/kubelet/apis/podresources`).
//!
//! This kubelet gives nothing of the node to one container alone: no devices, no processors, no memory, no resource
//! claims. So every container is listed, with nothing.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::host::HostInterface;
use coracle_core::metrics::pod_resources as metrics;
use coracle_core::ports::ApiServer;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::limiter::Limiter;
use crate::podresources_v1::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use crate::podresources_v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerResources, GetPodResourcesRequest,
    GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use crate::podresources_v1alpha1 as alpha;
use crate::podresources_v1alpha1::pod_resources_lister_server::PodResourcesLister as AlphaLister;
use crate::podresources_v1alpha1::pod_resources_lister_server::PodResourcesListerServer as AlphaServer;
use crate::socket::{self, SocketError};

/// Below the root folder (`DefaultKubeletPodResourcesDirName`, `Socket`).
const SOCKET: &str = "pod-resources/kubelet.sock";
/// Requests at once on one connection.
const MAX_STREAMS: u32 = 16;
const V1: &str = "v1";
const V1_ALPHA1: &str = "v1alpha1";

/// The socket, bound and ready.
pub struct PodResourcesServer {
    /// Taken when it is served.
    listener: Mutex<Option<UnixListener>>,
    shutdown: CancellationToken,
}

impl PodResourcesServer {
    /// Makes the socket `pod-resources/kubelet.sock` below the kubelet's root folder.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(root_dir: &Path, shutdown: CancellationToken) -> Result<Self, SocketError> {
        let listener = socket::listen(&root_dir.join(SOCKET))?;
        Ok(Self { listener: Mutex::new(Some(listener)), shutdown })
    }
}

#[async_trait]
impl ApiServer for PodResourcesServer {
    /// `ListenAndServePodResources`.
    async fn serve(&self, host: Arc<dyn HostInterface>) {
        let Some(listener) = self.listener.lock().take() else { return };
        let limiter = Limiter::new();
        let lister = Lister(host);
        let served = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(PodResourcesListerServer::with_interceptor(lister.clone(), limiter.clone()))
            .add_service(AlphaServer::with_interceptor(lister, limiter))
            .serve_with_incoming_shutdown(
                UnixListenerStream::new(listener),
                self.shutdown.clone().cancelled_owned(),
            );
        if let Err(error) = served.await {
            tracing::error!(%error, "the pod resources socket is not served");
        }
    }
}

#[derive(Clone)]
struct Lister(Arc<dyn HostInterface>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    /// All pods that have not ended.
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        metrics::REQUESTS.with_label_values(&[V1]).inc();
        metrics::LIST_REQUESTS.with_label_values(&[V1]).inc();
        let pod_resources = self.0.active_pods().iter().map(|pod| resources_of(pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    /// What could be given to containers alone: nothing.
    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        metrics::REQUESTS.with_label_values(&[V1]).inc();
        metrics::ALLOCATABLE_REQUESTS.with_label_values(&[V1]).inc();
        Ok(Response::new(AllocatableResourcesResponse::default()))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        metrics::REQUESTS.with_label_values(&[V1]).inc();
        metrics::GET_REQUESTS.with_label_values(&[V1]).inc();
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let Some(pod) = self.0.pod_by_name(&pod_namespace, &pod_name) else {
            metrics::GET_ERRORS.with_label_values(&[V1]).inc();
            return Err(Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found")));
        };
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(resources_of(&pod)) }))
    }
}

/// Sidecars and main containers.
fn resources_of(pod: &Pod) -> PodResources {
    let spec = pod.spec.as_ref();
    let init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let main = spec.iter().flat_map(|spec| &spec.containers);
    let container = |container: &Container| ContainerResources {
        name: container.name.clone(),
        ..ContainerResources::default()
    };
    PodResources {
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        containers: sidecars.chain(main).map(container).collect(),
        ..PodResources::default()
    }
}

#[tonic::async_trait]
impl AlphaLister for Lister {
    /// All pods, and their main containers.
    async fn list(
        &self,
        _: Request<alpha::ListPodResourcesRequest>,
    ) -> Result<Response<alpha::ListPodResourcesResponse>, Status> {
        metrics::REQUESTS.with_label_values(&[V1_ALPHA1]).inc();
        let container = |container: &Container| alpha::ContainerResources {
            name: container.name.clone(),
            devices: Vec::new(),
        };
        let pod_resources = |pod: &Arc<Pod>| alpha::PodResources {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            containers: pod.spec.iter().flat_map(|spec| &spec.containers).map(container).collect(),
        };
        let pod_resources = self.0.pods().iter().map(pod_resources).collect();
        Ok(Response::new(alpha::ListPodResourcesResponse { pod_resources }))
    }
}
