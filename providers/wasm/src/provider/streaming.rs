//! `StreamingService`: commands beside a container's own program, its standard streams, and its ports.
//!
//! There is one program in a container, so a command is that program with other arguments, in the same environment, files
//! and network, and within the same memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{
    ContainerState, Error, ErrorKind, ExecSyncResponse, PortConnection, Result, SessionOptions, Stream,
    StreamingService,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::container::{Container, Guest};
use super::{WasmProvider, no_container, no_sandbox, not_ready};
use crate::guest::{Client, Invocation, Outcome, Session, run_command};

/// What is kept of each output of a command that is run to its end; the rest is lost. CRI allows 16 MiB, and probes and
/// hooks, which are who asks, read 10 KiB.
const KEPT_OUTPUT: usize = 16 << 10;

/// Sizes of a terminal that may wait. A guest has no way to learn them.
const SIZES: usize = 4;

#[async_trait]
impl StreamingService for WasmProvider {
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecSyncResponse> {
        let (client, exit) = self.run(container_id, command, false, false)?;
        let stderr = async {
            match client.stderr {
                Some(stderr) => kept(stderr).await,
                None => Vec::new(),
            }
        };
        let all = async { tokio::join!(kept(client.stdout), stderr, exit) };
        // Dropping all that ends the command.
        let (stdout, stderr, exit) = match limit {
            Duration::ZERO => all.await,
            _ => timeout(limit, all).await.map_err(|_| {
                let message = format!("command {command:?} did not end within {limit:?}");
                Error::new(ErrorKind::DeadlineExceeded, message)
            })?,
        };
        let exit_code = exit.unwrap_or_else(|_| Err(provider_ends()))?;
        Ok(ExecSyncResponse { stdout, stderr, exit_code })
    }

    async fn exec(&self, container_id: &str, command: &[String], options: SessionOptions) -> Result<Stream> {
        let (client, exit) = self.run(container_id, command, options.stdin, options.tty)?;
        Ok(stream(client, exit))
    }

    async fn attach(&self, container_id: &str, options: SessionOptions) -> Result<Stream> {
        let SessionOptions { stdin, tty, .. } = options;
        let (container, guest) = self.running(container_id)?;
        let client = guest.env.stdio.attach(stdin);
        if tty == client.stderr.is_some() {
            let (has, wanted) = if tty { ("no", "one") } else { ("a", "none") };
            return Err(Error::invalid(format!(
                "container {container_id} has {has} terminal, and {wanted} was asked for"
            )));
        }
        let (told, exit) = oneshot::channel();
        self.shared.spawner.spawn(tell_end(container, told));
        Ok(stream(client, exit))
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<PortConnection> {
        let sandbox = self.shared.tables.sandbox(sandbox_id).ok_or_else(|| no_sandbox(sandbox_id))?;
        let net = sandbox.net().ok_or_else(|| not_ready(sandbox_id))?;
        let connection = net.connect_loopback(port).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("cannot connect to port {port} of {net}: {error}"))
        })?;
        let (read, write) = connection.into_split();
        Ok(PortConnection { read: Box::new(read), write: Box::new(write) })
    }
}

impl WasmProvider {
    fn running(&self, id: &str) -> Result<(Arc<Container>, Arc<Guest>)> {
        let container = self.shared.tables.container(id).ok_or_else(|| no_container(id))?;
        let guest = container.guest().filter(|_| container.status().state == ContainerState::Running);
        let guest = guest.ok_or_else(|| Error::invalid(format!("container {id} does not run")))?;
        Ok((container, guest))
    }

    /// Starts a command beside the container's own program. It ends when the program does, or when the answer's receiver
    /// is dropped.
    fn run(
        &self,
        id: &str,
        command: &[String],
        stdin: bool,
        tty: bool,
    ) -> Result<(Client, oneshot::Receiver<Result<i32>>)> {
        let (container, guest) = self.running(id)?;
        if command.is_empty() {
            return Err(Error::invalid("a command has at least one word"));
        }
        let program = guest.program.command().cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Unimplemented,
                format!(
                    "container {:?} cannot run {:?}: its program only answers HTTP requests, and has no \
                     `wasi:cli/run` that a command could be given to",
                    container.status().name,
                    command[0]
                ),
            )
        })?;
        let Session { stdio, notes, client, interrupted, end } = Session::new(stdin, tty);
        let (mut told, exit) = oneshot::channel();
        let ended = container.ended().clone();
        let invocation = Invocation { arguments: command.to_vec(), stdio, notes };
        let work = async move {
            let (hang_up, hung_up) = oneshot::channel::<()>();
            let stopped = async move {
                tokio::select! {
                    biased;
                    () = ended.cancelled() => Outcome::killed("its container has ended"),
                    // The other end is dropped with this task or when nobody listens.
                    _ = hung_up => Outcome::killed("nobody waits for it"),
                    () = interrupted.cancelled() => Outcome::interrupted(),
                }
            };
            let mut running = std::pin::pin!(run_command(guest.env.clone(), program, invocation, stopped));
            let outcome = tokio::select! {
                outcome = &mut running => outcome,
                () = told.closed() => {
                    drop(hang_up);
                    running.await
                }
            };
            drop(end);
            // Whoever asked may have gone.
            let _ = told.send(Ok(outcome.exit_code));
        };
        // The tracker lets a container wait for its commands, the spawner the provider.
        let work = container.commands.track_future(work);
        self.shared.spawner.spawn(work);
        Ok((client, exit))
    }
}

/// Tells an attached client how the container ended, if it is still there then.
async fn tell_end(container: Arc<Container>, mut told: oneshot::Sender<Result<i32>>) {
    tokio::select! {
        status = container.wait_for_end() => {
            let _ = told.send(Ok(status.exit_code));
        }
        () = told.closed() => {}
    }
}

fn stream(client: Client, exit: oneshot::Receiver<Result<i32>>) -> Stream {
    let Client { stdin, stdout, stderr } = client;
    let (resize, _) = mpsc::channel(SIZES);
    Stream::Io {
        stdin,
        stdout: Some(Box::new(stdout)),
        stderr: stderr.map(|stderr| Box::new(stderr) as _),
        resize,
        exit,
    }
}

/// The beginning of an output, after all of it came.
async fn kept(mut output: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = vec![0; 8 << 10];
    // Reading a guest's output never fails.
    while let Ok(n @ 1..) = output.read(&mut piece).await {
        let room = KEPT_OUTPUT - kept.len();
        kept.extend_from_slice(&piece[..n.min(room)]);
    }
    kept
}

fn provider_ends() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider ends")
}
