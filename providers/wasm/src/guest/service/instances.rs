//! The instances of a service: fresh ones, and those that wait for a further request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
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
    pub(super) fn of(error: &wasmtime::Error) -> Self {
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
    jobs: mpsc::Sender<Job>,
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
    fn offer(&self, mut job: Job) -> Option<Job> {
        let mut open = self.open.lock();
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
        Some(job)
    }

    /// A seat for a new instance, which has begun its first request.
    fn seat(&self) -> (Seat, Option<Open>) {
        let (jobs, receiver) = mpsc::channel(self.reuse.concurrency);
        let load = Arc::new(Load { counts: Mutex::new(Counts { begun: 1, active: 1 }), ..Load::default() });
        let open = (self.reuse.count > 1).then(|| Open { jobs, load: load.clone() });
        (Seat { jobs: receiver, load }, open)
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
    jobs: mpsc::Receiver<Job>,
    load: Arc<Load>,
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
        loop {
            let patience = async {
                if is_idle {
                    tokio::time::sleep(service.instances.reuse.idle).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                biased;
                job = self.jobs.recv() => return job,
                () = service.closing.cancelled() => service.instances.leave(&self.load),
                () = patience => service.instances.leave_if_idle(&self.load),
            }
            // Off the list it still has what was given to it before, and then the channel ends.
            if !service.instances.is_on(&self.load) {
                return self.jobs.recv().await;
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
        let (seat, open) = self.instances.seat();
        if let Some(open) = open {
            self.instances.open.lock().push(open);
        }
        let guests = self.env.guests.clone();
        self.tasks.clone().spawn_on(self.live(seat, job), &guests);
    }

    /// The life of one instance. A request goes on when its client goes away: what it began is brought to its end, and its
    /// turn bounds how many of them there are.
    async fn live(self: Arc<Self>, mut seat: Seat, first: Job) {
        let work = async {
            match &self.handler {
                Handler::P2(pre) => super::p2::run(&self, pre, &mut seat, first).await,
                Handler::P3(pre) => super::p3::run(&self, pre, &mut seat, first).await,
            }
        };
        let ended = self.killed.run_until_cancelled(self.env.metered(work)).await;
        if let Some(Err(error)) = &ended {
            self.env.failed(error, &self.env.stdio.notes());
        }
        self.instances.leave(&seat.load);
        if ended.is_none() {
            return;
        }
        // What it had not begun is for others.
        seat.jobs.close();
        while let Some(job) = seat.jobs.recv().await {
            self.clone().begin(job);
        }
    }
}
