//! Between a client and a process: bytes, sizes and the outcome.

use std::future::pending;

use coracle_core::sessions::SessionError;
use coracle_provider::{Result as ProviderResult, Stream, TerminalSize};
use coracle_streaming::remotecommand::{Handshake, Outcome, Resizes};
use coracle_streaming::{ReadHalf, WriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// What a session is for.
pub(super) enum Kind {
    /// A command of its own.
    Exec {
        /// The command.
        command: Vec<String>,
    },
    /// The container's own process.
    Attach,
}

/// What a process reads.
type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// What it writes.
type Output = Box<dyn AsyncRead + Send + Unpin>;

/// The streams of a process that runs in this node's own memory.
pub(super) struct Process {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    resize: mpsc::Sender<TerminalSize>,
    /// Dropping it ends a command.
    exit: oneshot::Receiver<ProviderResult<i32>>,
}

impl Process {
    /// The session itself, or the URL where it is to be found.
    pub(super) fn new(stream: Stream) -> Result<Self, String> {
        match stream {
            Stream::Url(url) => Err(url),
            Stream::Io { stdin, stdout, stderr, resize, exit } => {
                Ok(Self { stdin, stdout, stderr, resize, exit })
            }
        }
    }
}

/// Runs a session until the process ends, or the client is gone: then the process goes with it, if it was made for this
/// session.
pub(super) async fn run(handshake: Handshake, process: Process, kind: Kind) {
    let mut session = match handshake.session().await {
        Ok(session) => session,
        Err(error) => {
            debug!(%error, "a session came to nothing");
            return;
        }
    };
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let input = send_input(session.stdin.take(), stdin);
    let sizes = send_sizes(session.resizes.take(), resize);
    let output = receive(stdout, session.stdout.take());
    let errors = receive(stderr, session.stderr.take());
    let exit = async {
        tokio::join!(output, errors);
        exit.await
    };
    let exit = tokio::select! {
        exit = exit => exit,
        never = input => match never {},
        never = sizes => match never {},
        () = session.ended() => return,
    };
    session.finish(&kind.outcome(exit)).await;
}

/// Nothing, which never comes.
enum Never {}

/// Copies what the client sends up to its end. Then the process's input ends too.
async fn send_input(client: Option<ReadHalf>, process: Option<Input>) -> Never {
    if let (Some(mut client), Some(mut process)) = (client, process) {
        // Either the client or the process is gone if it fails, and that shows elsewhere.
        let _ = copy(&mut client, &mut process).await;
        let _ = process.shutdown().await;
    }
    pending().await
}

async fn send_sizes(client: Option<Resizes>, process: mpsc::Sender<TerminalSize>) -> Never {
    if let Some(mut client) = client {
        while let Some(size) = client.next().await {
            let size = TerminalSize { width: size.width, height: size.height };
            if process.send(size).await.is_err() {
                break;
            }
        }
    }
    pending().await
}

/// Copies what the process writes. Nobody's output is read as well, so that the process does not wait for ever.
async fn receive(process: Option<Output>, client: Option<WriteHalf>) {
    let Some(mut process) = process else { return };
    let _ = match client {
        Some(mut client) => copy(&mut process, &mut client).await,
        None => copy(&mut process, &mut sink()).await,
    };
}

impl Kind {
    /// What the client is told (`ServeExec`, `ServeAttach`). An attached client is not told how the container ended: that
    /// is in the pod's status.
    fn outcome(&self, exit: Result<ProviderResult<i32>, oneshot::error::RecvError>) -> Outcome {
        let exit = exit.unwrap_or_else(|_| Err(coracle_provider::Error::internal("the process was lost")));
        match (self, exit.map_err(SessionError::from)) {
            (Self::Attach, Ok(_)) | (Self::Exec { .. }, Ok(0)) => Outcome::Success,
            (Self::Exec { command }, Ok(code)) => Outcome::NonZeroExit {
                code,
                message: format!("error executing command {command:?}, exit code {code}"),
            },
            (Self::Exec { .. }, Err(error)) => {
                Outcome::Failure(format!("error executing command in container: {error}"))
            }
            (Self::Attach, Err(error)) => Outcome::Failure(format!("error attaching to container: {error}")),
        }
    }
}
