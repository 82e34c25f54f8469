//! Sessions into running containers, as the kubelet's own API asks for them (upstream: `GetExec`, `GetAttach`,
//! `GetPortForward` and `RunInContainer` of `HostInterface`).

use async_trait::async_trait;
use coracle_provider::{PortConnection, SessionOptions, Stream};

/// A pod as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTarget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, if the request insists on one.
    pub uid: Option<String>,
}

/// A container as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTarget {
    /// The pod.
    pub pod: PodTarget,
    /// The container's name.
    pub container: String,
}

/// Opens sessions. Dropping a session's stream ends it.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Starts a command in a container (`GetExec`).
    async fn exec(
        &self,
        target: &ContainerTarget,
        command: &[String],
        options: SessionOptions,
    ) -> Result<Stream, SessionError>;

    /// Connects to a container's own process; whether it has a terminal says its spec (`GetAttach`).
    async fn attach(&self, target: &ContainerTarget, options: SessionOptions)
    -> Result<Stream, SessionError>;

    /// Where the pod's runtime itself serves a client that forwards ports; none if
    /// [`port_forward`](Self::port_forward) connects to them (`GetPortForward`).
    async fn port_forward_url(
        &self,
        target: &PodTarget,
        ports: &[u16],
    ) -> Result<Option<String>, SessionError>;

    /// Connects to a port of a pod.
    async fn port_forward(&self, target: &PodTarget, port: u16) -> Result<PortConnection, SessionError>;

    /// Runs a command to its end and gives what it wrote (`RunInContainer`).
    async fn run_in_container(
        &self,
        target: &ContainerTarget,
        command: &[String],
    ) -> Result<Vec<u8>, SessionError>;
}

/// Why there is no session. The texts are upstream's where it has them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such pod runs here.
    #[error("pod not found ({pod:?})")]
    PodNotFound {
        /// `name_namespace`
        pod: String,
    },
    /// No such container runs in it.
    #[error("container not found ({container:?})")]
    ContainerNotFound {
        /// Its name.
        container: String,
    },
    /// The provider refuses.
    #[error(transparent)]
    Provider(#[from] coracle_provider::Error),
    /// The command ended with another exit code than 0.
    #[error("command '{command}' exited with {code}: {stderr}")]
    Exited {
        /// The command, as one line.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it wrote to its standard error.
        stderr: String,
    },
}
