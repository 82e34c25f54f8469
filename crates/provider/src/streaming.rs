//! exec, attach and port-forward.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What came of a command that was run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSyncResponse {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The exit code.
    pub exit_code: i32,
}

/// What a session has of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output; with a terminal, all output.
    pub stdout: bool,
    /// Standard error; never with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// An open session: either somewhere else, or right here.
pub enum Stream {
    /// At the runtime's streaming server; bytes are to be proxied to this URL. Who knows it may use the session.
    Url(String),
    /// The session itself.
    Io {
        /// Towards the process.
        stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
        /// From the process.
        stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
        /// From the process; none with a terminal.
        stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
        /// New sizes of the terminal.
        resize: mpsc::Sender<TerminalSize>,
        /// The exit code, once the process ended.
        exit: oneshot::Receiver<Result<i32>>,
    },
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url"),
            Self::Io { .. } => f.write_str("Io"),
        }
    }
}

/// A connection to a port of a pod.
pub struct PortConnection {
    /// From the pod.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// To the pod.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

impl std::fmt::Debug for PortConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PortConnection")
    }
}

/// Sessions into running containers (CRI: `Exec`, `Attach`, `PortForward`, `ExecSync`).
#[async_trait]
pub trait StreamingService: Send + Sync {
    /// Runs a command to its end, at most `timeout` long.
    async fn exec_sync(
        &self,
        _container_id: &str,
        _command: &[String],
        _timeout: std::time::Duration,
    ) -> Result<ExecSyncResponse> {
        Err(Error::unimplemented("exec"))
    }

    /// Starts a command.
    async fn exec(
        &self,
        _container_id: &str,
        _command: &[String],
        _options: SessionOptions,
    ) -> Result<Stream> {
        Err(Error::unimplemented("exec"))
    }

    /// Connects to the container's own process.
    async fn attach(&self, _container_id: &str, _options: SessionOptions) -> Result<Stream> {
        Err(Error::unimplemented("attach"))
    }

    /// Where the runtime itself serves a client that forwards ports of the pod; none if
    /// [`port_forward`](Self::port_forward) connects to them. `ports` are those that the client named beforehand.
    async fn port_forward_url(&self, _sandbox_id: &str, _ports: &[u16]) -> Result<Option<String>> {
        Ok(None)
    }

    /// Connects to a port of the pod.
    async fn port_forward(&self, _sandbox_id: &str, _port: u16) -> Result<PortConnection> {
        Err(Error::unimplemented("port-forward"))
    }
}
