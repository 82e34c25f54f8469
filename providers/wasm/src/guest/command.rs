//! Running a command: a guest that begins, works and ends.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::InstancePre;
use wasmtime_wasi::{p2, p3};

use super::outcome::Outcome;
use super::state::{ContainerEnv, GuestState};
use super::stdio::{Notes, Stdio};
use super::stop::Stop;
use crate::logs::Tag;

/// A command of any kind.
#[derive(Clone)]
pub(crate) enum Command {
    /// A core module of WASI 0.1.
    Module(InstancePre<GuestState>),
    /// A component of WASI 0.2.
    P2(p2::bindings::CommandPre<GuestState>),
    /// A component of WASI 0.3.
    P3(p3::bindings::CommandPre<GuestState>),
}

/// What a command is run with, besides what its container has.
pub(crate) struct Invocation {
    pub(crate) arguments: Vec<String>,
    pub(crate) stdio: Stdio,
    /// Where it is told if it fails.
    pub(crate) notes: Notes,
}

/// Runs a container's own program to its end, or until it is asked to stop. WASI has no signals, so asking is ending.
pub(crate) async fn run_main(
    env: Arc<ContainerEnv>,
    command: Command,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Outcome {
    let invocation = Invocation {
        arguments: env.arguments.clone(),
        stdio: env.stdio.instance(Tag::Partial),
        notes: env.stdio.notes(),
    };
    let interrupted = env.stdio.interrupted().clone();
    let end = async move {
        tokio::select! {
            biased;
            stopped = stop.wait_for(Option::is_some) => match stopped.as_deref() {
                Ok(Some(stop)) if stop.is_immediate() => Outcome::killed(""),
                _ => Outcome::terminated(),
            },
            () = interrupted.cancelled() => Outcome::interrupted(),
        }
    };
    run(env, command, invocation, end).await
}

/// Runs a command to its end on the runtime for guests.
///
/// Once `end` is there the command is interrupted, wherever it is: in its own code at the next tick of the engine's
/// clock, in a host call right away. An operation on a file that the kernel holds up goes on without it. Dropping the
/// call interrupts it, too.
pub(crate) async fn run(
    env: Arc<ContainerEnv>,
    command: Command,
    invocation: Invocation,
    end: impl Future<Output = Outcome> + Send + 'static,
) -> Outcome {
    let guests = env.guests.clone();
    let Invocation { arguments, stdio, notes } = invocation;
    let work = {
        let env = env.clone();
        async move {
            tokio::select! {
                biased;
                outcome = end => outcome,
                result = env.metered(call(&env, &command, &arguments, stdio)) => {
                    result.unwrap_or_else(|error| env.failed(&error, &notes))
                }
            }
        }
    };
    // A guest cannot make the host panic short of a bug in the engine; then it is better to lose one container.
    AbortOnDropHandle::new(guests.spawn(work))
        .await
        .unwrap_or_else(|error| Outcome::failed(format!("the host failed: {error}")))
}

async fn call(
    env: &ContainerEnv,
    command: &Command,
    arguments: &[String],
    stdio: Stdio,
) -> wasmtime::Result<Outcome> {
    let (mut store, metrics) = (env.store(arguments, stdio), env.engine.metrics());
    let result = match command {
        Command::Module(pre) => {
            let instance = metrics.instantiating(pre.instantiate_async(&mut store)).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(&mut store, ()).await?;
            Ok(())
        }
        Command::P2(pre) => {
            let instance = metrics.instantiating(pre.instantiate_async(&mut store)).await?;
            instance.wasi_cli_run().call_run(&mut store).await?
        }
        Command::P3(pre) => {
            let instance = metrics.instantiating(pre.instantiate_async(&mut store)).await?;
            store.run_concurrent(async |accessor| instance.wasi_cli_run().call_run(accessor).await).await??
        }
    };
    Ok(Outcome::exited(if result.is_ok() { 0 } else { 1 }))
}
