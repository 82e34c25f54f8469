//! The connection to the runtime, and its calls with their deadlines (upstream: `k8s.io/cri-client/pkg`).

use std::path::PathBuf;
use std::time::Duration;

use coracle_provider::{Error, ErrorKind, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::bindings as cri;
use crate::bindings::image_service_client::ImageServiceClient;
use crate::bindings::runtime_service_client::RuntimeServiceClient;
use crate::error::{from_pull_status, from_status};

/// The largest answer that is taken (`maxMsgSize`).
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Who makes control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime writes to their file system.
    Cgroupfs,
    /// systemd does it for the runtime.
    Systemd,
}

/// Calls a runtime. Cheap to clone: all clones share a connection, which is made at the first call and again after it broke.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// What a call gets that has no time of its own (`runtimeRequestTimeout`).
    timeout: Duration,
}

impl Client {
    /// A client for the runtime at `runtime` and images at `images`, both Unix sockets.
    pub(crate) fn new(runtime: PathBuf, images: PathBuf, timeout: Duration) -> Self {
        let same = runtime == images;
        let runtime = channel(runtime);
        let images = if same { runtime.clone() } else { channel(images) };
        Self {
            runtime: RuntimeServiceClient::new(runtime).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images).max_decoding_message_size(MAX_MESSAGE),
            timeout,
        }
    }
}

fn channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Only the path of the socket leads anywhere; the name is what upstream's client sends as the authority.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// Waits for an answer no longer than `timeout`. Server and client stop at the same time.
async fn within<T>(
    call: &str,
    timeout: Option<Duration>,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    let Some(timeout) = timeout else { return answer.await.map(Response::into_inner) };
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("{call} has not answered within {timeout:?}"))),
    }
}

fn request<T>(message: T, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

/// Calls that differ in nothing but their names.
macro_rules! calls {
    ($($service:ident { $($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)* })*) => {
        impl Client {
            $($(
                $(#[$doc])*
                pub(crate) async fn $name(&self, message: cri::$request) -> Result<cri::$response> {
                    let mut service = self.$service.clone();
                    // The client's futures are large.
                    let answer = Box::pin(service.$name(request(message, Some(self.timeout))));
                    let answer = within(stringify!($name), Some(self.timeout), answer).await;
                    answer.map_err(|status| from_status(stringify!($name), &status))
                }
            )*)*
        }
    };
}

calls! {
    runtime {
        version(VersionRequest) -> VersionResponse;
        status(StatusRequest) -> StatusResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        start_container(StartContainerRequest) -> StartContainerResponse;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        list_containers(ListContainersRequest) -> ListContainersResponse;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
    }
    images {
        list_images(ListImagesRequest) -> ListImagesResponse;
        image_status(ImageStatusRequest) -> ImageStatusResponse;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}

impl Client {
    /// Twice the usual time.
    pub(crate) async fn run_pod_sandbox(&self, message: cri::RunPodSandboxRequest) -> Result<String> {
        let (mut service, timeout) = (self.runtime.clone(), Some(self.timeout * 2));
        let answer = Box::pin(service.run_pod_sandbox(request(message, timeout)));
        let answer = within("run_pod_sandbox", timeout, answer).await;
        answer.map(|it| it.pod_sandbox_id).map_err(|status| from_status("run_pod_sandbox", &status))
    }

    /// `grace` seconds and the usual time.
    pub(crate) async fn stop_container(&self, container_id: String, grace: i64) -> Result<()> {
        let own = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        let (mut service, timeout) = (self.runtime.clone(), Some(self.timeout.saturating_add(own)));
        let message = cri::StopContainerRequest { container_id, timeout: grace };
        let answer =
            within("stop_container", timeout, service.stop_container(request(message, timeout))).await;
        answer.map(drop).map_err(|status| from_status("stop_container", &status))
    }

    /// The command's own time, of which 0 is unlimited, and the usual one.
    pub(crate) async fn exec_sync(&self, message: cri::ExecSyncRequest) -> Result<cri::ExecSyncResponse> {
        let own = u64::try_from(message.timeout).ok().filter(|seconds| *seconds > 0);
        let timeout = own.map(|seconds| self.timeout.saturating_add(Duration::from_secs(seconds)));
        let mut service = self.runtime.clone();
        let answer = Box::pin(service.exec_sync(request(message, timeout)));
        let answer = within("exec_sync", timeout, answer).await;
        answer.map_err(|status| from_status("exec_sync", &status))
    }

    /// Without a deadline: how long it takes is the registry's business.
    pub(crate) async fn pull_image(&self, image: &str, message: cri::PullImageRequest) -> Result<String> {
        let answer = self.images.clone().pull_image(message).await;
        let answer = answer.map_err(|status| from_pull_status(image, &status))?;
        Ok(answer.into_inner().image_ref)
    }

    /// What happens to containers, without an end.
    pub(crate) async fn container_events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>> {
        let answer = self.runtime.clone().get_container_events(cri::GetEventsRequest {}).await;
        answer.map(Response::into_inner).map_err(|status| from_status("get_container_events", &status))
    }

    /// Who makes control groups; none if the runtime is too old to say.
    pub(crate) async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        match self.runtime_config(cri::RuntimeConfigRequest {}).await {
            Ok(config) => Ok(config.linux.map(|linux| match linux.cgroup_driver() {
                cri::CgroupDriver::Systemd => CgroupDriver::Systemd,
                cri::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
            })),
            Err(Error { kind: ErrorKind::Unimplemented, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
