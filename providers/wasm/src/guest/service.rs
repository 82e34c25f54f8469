//! Serving HTTP with a guest: a fresh instance for each request.
//!
//! Between requests there is a listener, a waiting task and nothing else. Connections live on the runtime for I/O;
//! instances on the one for guests, so that no guest holds up a connection that is not its own.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::PoolConcurrencyLimitError;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::memory::MemoryExceeded;
use super::outcome::Outcome;
use super::state::{ContainerEnv, GuestState};
use super::stop::Stop;
use crate::logs::{Source, Tag};

/// What clients may take from one service.
#[derive(Clone, Debug)]
pub struct ServiceLimits {
    /// Connections at once; more wait to be accepted. Stops clients that use up the node's descriptors.
    pub connections: usize,
    /// Requests at once, and so instances; more wait. Stops clients that use up the node's instances. A container's
    /// memory limit may lower it.
    pub requests: usize,
    /// How long a request waits for its turn before it is answered with 503.
    pub queue_timeout: Duration,
    /// How long a client may take to send a request's head, and a connection may stay without a request. Stops
    /// clients that open connections and say nothing.
    pub header_timeout: Duration,
    /// Bytes of a request's head, and what is buffered of its body.
    pub header_bytes: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 128,
            queue_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            header_bytes: 64 << 10,
        }
    }
}

/// What hyper needs at least.
const LEAST_BUFFER: usize = 8 << 10;

type Instances = ProxyPre<GuestState>;
type StopWishes = watch::Receiver<Option<Stop>>;

/// A service whose program was instantiated once, to see that it can be.
pub(crate) struct Service {
    env: Arc<ContainerEnv>,
    instances: Instances,
    limits: ServiceLimits,
    turns: Arc<Semaphore>,
    in_flight: AtomicUsize,
    /// Everything that has to end before the service has.
    tasks: TaskTracker,
    /// No more requests on open connections.
    closing: CancellationToken,
    /// Instances end now.
    killed: CancellationToken,
}

impl Service {
    /// Makes an instance and throws it away: a guest that cannot even start fails here, and not at its first request.
    pub(crate) async fn prepare(
        env: Arc<ContainerEnv>,
        instances: Instances,
        limits: ServiceLimits,
        mut stop: StopWishes,
    ) -> Result<Arc<Self>, Outcome> {
        let trial = {
            let (env, instances) = (env.clone(), instances.clone());
            async move {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(Option::is_some) => Err(Outcome::terminated()),
                    size = env.metered(instance_size(&env, &instances)) => size.map_err(|error| env.failed(&error)),
                }
            }
        };
        let size = env.guests.spawn(trial).await.unwrap_or_else(|error| Err(host_failed(error)))?;
        let that_fit = usize::try_from(env.memory.limit() / size.max(1)).unwrap_or(usize::MAX);
        Ok(Arc::new(Self {
            turns: Arc::new(Semaphore::new(limits.requests.min(that_fit).clamp(1, Semaphore::MAX_PERMITS))),
            env,
            instances,
            limits,
            in_flight: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            killed: CancellationToken::new(),
        }))
    }

    /// Serves until it is asked to stop, then finishes what is in flight. It ended well if nothing was cut off.
    ///
    /// Runs on the runtime for I/O. Dropping the call ends all instances.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: StopWishes) -> Outcome {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return Outcome::failed(format!("cannot serve: {error}")),
        };
        let _kill_on_drop = self.killed.clone().drop_guard();
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => break,
                (stream, slot) = accept(&listener, &connections) => {
                    self.tasks.spawn(self.clone().connection(stream, slot));
                }
            }
        }
        drop(listener);
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

    async fn connection(self: Arc<Self>, stream: TcpStream, slot: OwnedSemaphorePermit) {
        // Without it a response waits for the client to acknowledge the one before.
        let _ = stream.set_nodelay(true);
        let service = service_fn({
            let this = self.clone();
            move |request| this.clone().respond(request)
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_timeout)
                .max_buf_size(self.limits.header_bytes.max(LEAST_BUFFER))
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            biased;
            // A client that goes away is no news.
            _ = connection.as_mut() => return,
            () = self.closing.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = self.killed.cancelled() => {}
        }
        drop(slot);
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<HyperOutgoingBody>, Infallible> {
        // `wasi:http` has no requests without one.
        if request.uri().authority().is_none() && !request.headers().contains_key(HOST) {
            return Ok(plain(StatusCode::BAD_REQUEST, "the request names no host\n"));
        }
        let turn = tokio::time::timeout(self.limits.queue_timeout, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being served\n"));
        };
        let (responder, response) = oneshot::channel();
        let this = self.clone();
        let instance = self.tasks.spawn_on(
            async move {
                let _turn = turn;
                this.instance(request, responder).await
            },
            &self.env.guests,
        );
        match response.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(code)) => {
                self.note(&format!("the service answered a request with an error: {code:?}"));
                Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED))
            }
            Err(_) => Ok(self.without_answer(instance.await.unwrap_or(End::Killed))),
        }
    }

    /// The response to a request whose instance ended before it gave one.
    fn without_answer(&self, end: End) -> Response<HyperOutgoingBody> {
        match end {
            End::Returned => {
                self.note("the service returned from a request without an answer to it");
                plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
            }
            End::Trapped => plain(StatusCode::INTERNAL_SERVER_ERROR, FAILED),
            End::NoRoom => plain(StatusCode::SERVICE_UNAVAILABLE, "there is no room for the request now\n"),
            End::Killed => plain(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping\n"),
        }
    }

    fn note(&self, text: &str) {
        self.env.log.note(Source::Stderr, text);
    }

    /// The life of one instance. It goes on when its client goes away: what a request began is brought to its end, and
    /// its turn bounds how many of them there are.
    async fn instance(&self, request: Request<Incoming>, responder: Responder) -> End {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let end = tokio::select! {
            biased;
            () = self.killed.cancelled() => End::Killed,
            handled = self.env.metered(handle(&self.env, &self.instances, request, responder)) => match handled {
                Ok(()) => End::Returned,
                Err(error) => {
                    self.env.failed(&error);
                    if is_for_want_of_room(&error) { End::NoRoom } else { End::Trapped }
                }
            },
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        end
    }
}

/// How an instance ended.
enum End {
    /// Its handler returned.
    Returned,
    /// It failed.
    Trapped,
    /// It could not be made, or not go on, and the same request may work once others have given back what they have.
    NoRoom,
    /// It was ended by force.
    Killed,
}

/// What a client is told. The container's log knows more.
const FAILED: &str = "the service failed\n";

type Responder = oneshot::Sender<Result<Response<HyperOutgoingBody>, ErrorCode>>;

async fn handle(
    env: &ContainerEnv,
    instances: &Instances,
    request: Request<Incoming>,
    responder: Responder,
) -> wasmtime::Result<()> {
    // Others write to the same log after this instance.
    let mut store = env.store(Tag::Full);
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let response = store.data_mut().http().new_response_outparam(responder)?;
    let instance = instances.instantiate_async(&mut store).await?;
    instance.wasi_http_incoming_handler().call_handle(&mut store, request, response).await
}

/// Makes an instance, and says how many bytes of memory it has before it serves anything.
async fn instance_size(env: &ContainerEnv, instances: &Instances) -> wasmtime::Result<u64> {
    let mut store = env.store(Tag::Full);
    instances.instantiate_async(&mut store).await?;
    Ok(store.data().memory().charged())
}

/// Whether the same request may work once others have given back what they have.
fn is_for_want_of_room(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<MemoryExceeded>().is_some()
        || error.downcast_ref::<PoolConcurrencyLimitError>().is_some()
}

/// Waits for a free slot, then for a client.
async fn accept(
    listener: &tokio::net::TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(slot) = connections.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // Out of descriptors, most likely. The client waits in the listener's queue meanwhile.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn host_failed(error: tokio::task::JoinError) -> Outcome {
    Outcome::failed(format!("the host failed: {error}"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
