//! The instances of a service: fresh ones, and those that wait for a further request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use wasmtime::PoolConcurrencyLimitError;
use wasmtime_wasi_http::WasiBody;

use super::limits::Reuse;
use super::respond::Hold;
use super::{Handler, Service};
use crate::guest::memory::MemoryExceeded;

/// A request on its way to an instance.
pub(super) struct Job {
    pub(super) request: Request<WasiBody>,
    pub(super) responder: Responder,
    /// Hears how the request ended if the responder did not.
    pub(super) end: oneshot::Sender<End>,
    pub(super) hold: Arc<Hold>,
}

/// Takes the response, or what a guest answers instead.
pub(super) type Responder = oneshot::Sender<Result<Response<WasiBody>, String>>;

/// How a request ended that got no answer.
pub(super) enum End {
    /// Its handler returned.
    Returned,
    /// Its instance failed.
    Trapped,
    /// Its instance could not be made, or not go on, and the same request may work once others have given back what they
    /// have.
    NoRoom,
}

impl End {
    fn of(error: &wasmtime::Error) -> Self {
        let no_room = error.downcast_ref::<MemoryExceeded>().is_some()
            || error.downcast_ref::<PoolConcurrencyLimitError>().is_some();
        if no_room { Self::NoRoom } else { Self::Trapped }
    }
}

/// The instances that take further requests.
pub(super) struct Instances {
    pub(super) reuse: Reuse,
    /// The ones used last are at the end, and used first, so that the others can go.
    open: Mutex<Vec<Open>>,
}

struct Open {
    jobs: mpsc::Sender<Box<Job>>,
    load: Arc<Load>,
}

/// What an instance has to do. Changes under the lock of [`Instances`].
#[derive(Default)]
struct Load {
    counts: Mutex<Counts>,
    /// It computes right now, so another request would only wait.
    busy: AtomicBool,
}

#[derive(Default)]
struct Counts {
    begun: usize,
    active: usize,
}

impl Instances {
    pub(super) fn new(reuse: Reuse) -> Self {
        Self { reuse, open: Mutex::default() }
    }

    /// Gives a request to an instance that has room for it, or gives it back.
    fn offer(&self, job: Job) -> Option<Job> {
        let mut open = self.open.lock();
        if open.is_empty() {
            return Some(job);
        }
        let mut job = Box::new(job);
        for at in (0..open.len()).rev() {
            let Open { jobs, load } = &open[at];
            let mut counts = load.counts.lock();
            if counts.active >= self.reuse.concurrency || load.busy.load(Ordering::Relaxed) {
                continue;
            }
            match jobs.try_send(job) {
                Ok(()) => {
                    counts.begun += 1;
                    counts.active += 1;
                    let is_last = counts.begun == self.reuse.count;
                    drop(counts);
                    if is_last {
                        open.remove(at);
                    }
                    return None;
                }
                // It is about to end.
                Err(error) => job = error.into_inner(),
            }
        }
        Some(*job)
    }

    /// A seat for a new instance, which has begun its first request.
    fn seat(&self) -> Seat {
        let load = Arc::new(Load { counts: Mutex::new(Counts { begun: 1, active: 1 }), ..Load::default() });
        let jobs = (self.reuse.count > 1).then(|| {
            let (jobs, receiver) = mpsc::channel(self.reuse.concurrency);
            self.open.lock().push(Open { jobs, load: load.clone() });
            receiver
        });
        Seat { jobs, load, waits: None }
    }

    /// Takes an instance off the list.
    fn leave(&self, load: &Arc<Load>) {
        self.open.lock().retain(|open| !Arc::ptr_eq(&open.load, load));
    }

    /// Takes an instance off the list if it has nothing to do.
    fn leave_if_idle(&self, load: &Arc<Load>) {
        let mut open = self.open.lock();
        if load.counts.lock().active == 0 {
            open.retain(|open| !Arc::ptr_eq(&open.load, load));
        }
    }

    fn is_on(&self, load: &Arc<Load>) -> bool {
        self.open.lock().iter().any(|open| Arc::ptr_eq(&open.load, load))
    }
}

/// An instance's place among the others.
pub(super) struct Seat {
    /// None if its first request is its only one.
    jobs: Option<mpsc::Receiver<Box<Job>>>,
    load: Arc<Load>,
    waits: Option<Waits>,
}

/// What else an instance waits for than a request. Kept from one to the next: to begin and end both each time costs more
/// than all the rest of waiting.
struct Waits {
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    idle: Pin<Box<Sleep>>,
}

impl Waits {
    fn new(service: &Service) -> Self {
        Self {
            closing: Box::pin(service.closing.clone().cancelled_owned()),
            idle: Box::pin(tokio::time::sleep(service.instances.reuse.idle)),
        }
    }
}

impl Seat {
    /// One of its requests is done.
    pub(super) fn done(&self) {
        self.load.counts.lock().active -= 1;
    }

    /// Says whether it computes, so that others take what comes.
    pub(super) fn busy(&self) -> Busy {
        Busy(self.load.clone())
    }

    /// The next request. None if there will be no more: it has had all that it may, or was idle for too long, or the
    /// service ends. May be dropped and called again.
    pub(super) async fn next(&mut self, service: &Service, is_idle: bool) -> Option<Job> {
        let jobs = self.jobs.as_mut()?;
        let waits = self.waits.get_or_insert_with(|| Waits::new(service));
        let patience = Instant::now() + service.instances.reuse.idle;
        loop {
            tokio::select! {
                biased;
                job = jobs.recv() => return job.map(|job| *job),
                () = waits.closing.as_mut() => service.instances.leave(&self.load),
                () = waits.idle.as_mut(), if is_idle => {
                    // It was started for an earlier request.
                    if Instant::now() < patience {
                        waits.idle.as_mut().reset(patience);
                        continue;
                    }
                    service.instances.leave_if_idle(&self.load);
                }
            }
            // Off the list it still has what was given to it before, and then the channel ends.
            if !service.instances.is_on(&self.load) {
                return jobs.recv().await.map(|job| *job);
            }
        }
    }
}

/// Says of an instance whether it computes.
pub(super) struct Busy(Arc<Load>);

impl Busy {
    pub(super) fn set(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::Relaxed);
    }
}

impl Service {
    /// Has a request answered by an instance that waits, or by a new one.
    pub(super) fn begin(self: Arc<Self>, job: Job) {
        let Some(job) = self.instances.offer(job) else { return };
        let seat = self.instances.seat();
        let guests = self.env.guests.clone();
        self.tasks.clone().spawn_on(self.live(seat, job), &guests);
    }

    /// The life of one instance. A request goes on when its client goes away: what it began is brought to its end, and its
    /// turn bounds how many of them there are.
    async fn live(self: Arc<Self>, mut seat: Seat, first: Job) {
        let work = async {
            match &self.handler {
                Handler::P2(pre) => super::p2::run(&self, pre, &mut seat, first).await,
                // Apart, because it is much larger.
                Handler::P3(pre) => Box::pin(super::p3::run(&self, pre, &mut seat, first)).await,
            }
        };
        let ended = self.killed.run_until_cancelled(self.env.metered(work)).await;
        let Some(mut jobs) = seat.jobs else { return };
        self.instances.leave(&seat.load);
        if ended.is_none() {
            return;
        }
        // What it had not begun is for others.
        jobs.close();
        while let Some(job) = jobs.recv().await {
            self.clone().begin(*job);
        }
    }

    /// Counts and writes down that an instance failed, before anybody hears that its request did.
    pub(super) fn failed(&self, error: &wasmtime::Error) -> End {
        self.env.failed(error, &self.env.stdio.notes());
        End::of(error)
    }
}
