//! Serving HTTP with a guest.
//!
//! Between requests there is a listener, a waiting task and nothing else, unless instances are kept for further requests.
//! Connections live on the runtime for I/O; instances on the one for guests, so that no guest holds up a connection that
//! is not its own.

mod connection;
mod instances;
mod limits;
mod p2;
mod p3;
mod patient;
mod respond;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use self::instances::Instances;
pub(crate) use self::limits::Reuse;
pub use self::limits::ServiceLimits;
use super::outcome::Outcome;
use super::state::{ContainerEnv, GuestState};
use super::stop::Stop;
use crate::logs::Tag;

type StopWishes = watch::Receiver<Option<Stop>>;

/// What answers requests.
#[derive(Clone)]
pub(crate) enum Handler {
    /// A component of WASI 0.2: one request at a time.
    P2(ProxyPre<GuestState>),
    /// A component of WASI 0.3.
    P3(ServicePre<GuestState>),
}

impl Handler {
    pub(crate) fn is_p3(&self) -> bool {
        matches!(self, Self::P3(_))
    }
}

/// A service whose program was instantiated once, to see that it can be.
pub(crate) struct Service {
    env: Arc<ContainerEnv>,
    handler: Handler,
    limits: ServiceLimits,
    instances: Instances,
    turns: Arc<Semaphore>,
    /// Requests whose answers are not complete yet.
    in_flight: Arc<AtomicUsize>,
    /// Everything that has to end before the service has.
    tasks: TaskTracker,
    /// No more requests on open connections, and none of the instances that wait for one.
    closing: CancellationToken,
    /// Instances end now.
    killed: CancellationToken,
}

impl Service {
    /// Makes an instance and throws it away: a guest that cannot even start fails here, and not at its first request.
    pub(crate) async fn prepare(
        env: Arc<ContainerEnv>,
        handler: Handler,
        limits: ServiceLimits,
        reuse: Reuse,
        mut stop: StopWishes,
    ) -> Result<Arc<Self>, Outcome> {
        let trial = {
            let (env, handler) = (env.clone(), handler.clone());
            async move {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(Option::is_some) => Err(Outcome::terminated()),
                    size = env.metered(instance_size(&env, &handler)) => {
                        size.map_err(|error| env.failed(&error, &env.stdio.notes()))
                    }
                }
            }
        };
        let size = env.guests.spawn(trial).await.unwrap_or_else(|error| Err(host_failed(error)))?;
        let that_fit = usize::try_from(env.memory.limit() / size.max(1)).unwrap_or(usize::MAX);
        Ok(Arc::new(Self {
            turns: Arc::new(Semaphore::new(limits.requests.min(that_fit).clamp(1, Semaphore::MAX_PERMITS))),
            env,
            handler,
            limits,
            instances: Instances::new(reuse),
            in_flight: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            killed: CancellationToken::new(),
        }))
    }

    /// Serves until it is asked to stop, then finishes what is in flight. It ended well if nothing was cut off.
    ///
    /// Runs on the runtime for I/O. Dropping the call ends all instances.
    pub(crate) async fn serve(self: Arc<Self>, listeners: Vec<TcpListener>, mut stop: StopWishes) -> Outcome {
        let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std);
        let listeners: Vec<_> = match listeners.collect() {
            Ok(listeners) => listeners,
            Err(error) => return Outcome::failed(format!("cannot serve: {error}")),
        };
        let _kill_on_drop = self.killed.clone().drop_guard();
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => break,
                (stream, slot) = accept(&listeners, &connections) => {
                    let connection = self.clone().connection(stream);
                    self.tasks.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
            }
        }
        drop(listeners);
        self.closing.cancel();
        self.tasks.close();
        self.drain(stop).await
    }

    async fn drain(&self, mut stop: StopWishes) -> Outcome {
        loop {
            let deadline = match *stop.borrow_and_update() {
                Some(stop) => stop.deadline(),
                // Only a wish to stop, or that nobody is left to have one, leads here.
                None => tokio::time::Instant::now(),
            };
            tokio::select! {
                biased;
                () = self.tasks.wait() => return Outcome::exited(0),
                () = tokio::time::sleep_until(deadline) => break,
                Ok(()) = stop.changed() => {}
            }
        }
        let cut_off = self.in_flight.load(Ordering::Relaxed);
        self.killed.cancel();
        self.tasks.wait().await;
        match cut_off {
            0 => Outcome::exited(0),
            n => Outcome::killed(format!("{n} requests were in flight when the grace period ended")),
        }
    }

    fn note(&self, text: &str) {
        self.env.stdio.notes().write(text);
    }

    fn store(&self) -> wasmtime::Store<GuestState> {
        // Others write to the same log after this instance.
        self.env.store(&self.env.arguments, self.env.stdio.instance(Tag::Full))
    }
}

/// Makes an instance, and says how many bytes of memory it has before it serves anything.
async fn instance_size(env: &ContainerEnv, handler: &Handler) -> wasmtime::Result<u64> {
    let mut store = env.store(&env.arguments, env.stdio.instance(Tag::Full));
    match handler {
        Handler::P2(pre) => {
            pre.instantiate_async(&mut store).await?;
        }
        Handler::P3(pre) => {
            pre.instantiate_async(&mut store).await?;
        }
    }
    Ok(store.data().memory().charged())
}

/// Waits for a free slot, then for a client.
async fn accept(
    listeners: &[tokio::net::TcpListener],
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(slot) = connections.clone().acquire_owned().await else { std::future::pending().await };
        match poll_fn(|context| poll_accept(listeners, context)).await {
            Ok((stream, _)) => return (stream, slot),
            // Out of descriptors, most likely. The client waits in the listener's queue meanwhile.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The first connection that waits at one of the listeners.
fn poll_accept(
    listeners: &[tokio::net::TcpListener],
    context: &mut Context<'_>,
) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    let accepted = listeners.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
    accepted.unwrap_or(Poll::Pending)
}

fn host_failed(error: tokio::task::JoinError) -> Outcome {
    Outcome::failed(format!("the host failed: {error}"))
}
