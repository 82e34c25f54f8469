//! Running a command: a guest that begins, works and ends.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::outcome::Outcome;
use super::state::{ContainerEnv, GuestState};
use super::stop::Stop;
use crate::logs::Tag;

/// A command of either kind.
pub(crate) enum Command {
    Module(InstancePre<GuestState>),
    Component(CommandPre<GuestState>),
}

/// Runs a command to its end on the runtime for guests.
///
/// WASI has no signals, so a command that is asked to stop is interrupted at once, wherever it is: in its own code at
/// the next tick of the engine's clock, in a host call right away. An operation on a file that the kernel holds up goes on
/// without it. Dropping the call interrupts it, too.
pub(crate) async fn run(
    env: Arc<ContainerEnv>,
    command: Command,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Outcome {
    let guests = env.guests.clone();
    let work = {
        let env = env.clone();
        async move {
            tokio::select! {
                biased;
                stopped = stop.wait_for(Option::is_some) => match stopped.as_deref() {
                    Ok(Some(stop)) if stop.is_immediate() => Outcome::killed(""),
                    _ => Outcome::terminated(),
                },
                result = env.metered(call(&env, &command)) => result.unwrap_or_else(|error| env.failed(&error)),
            }
        }
    };
    // A guest cannot make the host panic short of a bug in the engine; then it is better to lose one container.
    AbortOnDropHandle::new(guests.spawn(work))
        .await
        .unwrap_or_else(|error| Outcome::failed(format!("the host failed: {error}")))
}

async fn call(env: &ContainerEnv, command: &Command) -> wasmtime::Result<Outcome> {
    let mut store = env.store(Tag::Partial);
    match command {
        Command::Module(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(&mut store, ()).await?;
            Ok(Outcome::exited(0))
        }
        Command::Component(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            let result = instance.wasi_cli_run().call_run(&mut store).await?;
            Ok(Outcome::exited(if result.is_ok() { 0 } else { 1 }))
        }
    }
}
