//! Instances of WASI 0.3: many requests at once.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::{Service as Instance, ServicePre};

use super::Service;
use super::instances::{Job, Seat};
use super::respond::Hold;
use crate::guest::state::GuestState;

/// How long an instance may work on after all of its answers are complete, if it gets no more requests.
const AFTER_REQUESTS: Duration = Duration::from_secs(60);

/// An instance failed, and that has been told.
struct Failed;

/// Answers requests until there are no more for this instance, and it has nothing left to do. If it fails, all
/// of its requests do.
pub(super) async fn run(service: &Service, pre: &ServicePre<GuestState>, seat: &mut Seat, first: Job) {
    // Whoever has the next turn may need the memory of this instance: the store goes first, however this ends.
    let mut turns = Vec::new();
    let mut store = service.store();
    let yielded = Arc::new(AtomicBool::new(false));
    store.epoch_deadline_callback({
        let yielded = yielded.clone();
        move |_| {
            yielded.store(true, Ordering::Relaxed);
            Ok(wasmtime::UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        }
    });
    let made = service.env.engine.metrics().instantiating(pre.instantiate_async(&mut store)).await;
    let instance = match made {
        Ok(instance) => instance,
        Err(error) => {
            let _ = first.end.send(service.failed(&error));
            return;
        }
    };
    let busy = seat.busy();
    busy.set(true);
    let mut work = pin!(store.run_concurrent(async |accessor| {
        serve(service, accessor, &instance, seat, first, &mut turns).await
    }));
    let worked = std::future::poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        // While it computes it takes nothing else: one that is idle, or a new one, is quicker.
        busy.set(polled.is_pending() && yielded.swap(false, Ordering::Relaxed));
        polled
    });
    // What of it failed while it answered has been told.
    if let Err(error) = worked.await {
        service.failed(&error);
    }
}

/// Leaves in `turns` those of its requests that are to be given back after its memory: all while it takes further
/// requests, and for good those that end after that.
async fn serve(
    service: &Service,
    accessor: &Accessor<GuestState>,
    instance: &Instance,
    seat: &mut Seat,
    first: Job,
    turns: &mut Vec<Arc<Hold>>,
) -> Result<(), Failed> {
    turns.push(first.hold.clone());
    let mut given_back: Vec<Weak<Hold>> = Vec::new();
    let mut calls = FuturesUnordered::new();
    calls.push(answer(service, accessor, instance, first));
    let mut more = service.instances.reuse.count > 1;
    while more || !calls.is_empty() {
        // Bodies are sent, and other things done, after a call has returned.
        let is_idle = calls.is_empty() && has_nothing_to_do(accessor).await;
        tokio::select! {
            biased;
            Some(done) = calls.next(), if !calls.is_empty() => {
                let hold = done?;
                seat.done();
                if more {
                    turns.retain(|turn| !Arc::ptr_eq(turn, &hold));
                    given_back.retain(|turn| turn.strong_count() > 0);
                    given_back.push(Arc::downgrade(&hold));
                }
            }
            job = seat.next(service, is_idle), if more => match job {
                Some(job) => {
                    seat.busy().set(true);
                    turns.push(job.hold.clone());
                    calls.push(answer(service, accessor, instance, job));
                }
                None => more = false,
            },
            () = nothing_to_do(accessor), if more && calls.is_empty() && !is_idle => {}
        }
    }
    loop {
        tokio::select! {
            () = nothing_to_do(accessor) => return Ok(()),
            () = tokio::time::sleep(AFTER_REQUESTS) => {
                // Who else has it sends the rest of the answer.
                let is_sent = given_back.iter().all(|turn| turn.strong_count() == 0)
                    && turns.iter().all(|turn| Arc::strong_count(turn) == 1);
                if is_sent {
                    return Ok(());
                }
            }
        }
    }
}

async fn nothing_to_do(accessor: &Accessor<GuestState>) {
    std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
}

async fn has_nothing_to_do(accessor: &Accessor<GuestState>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(accessor.poll_no_interesting_tasks(cx).is_ready())).await
}

/// Gives the request's turn back to the caller.
async fn answer(
    service: &Service,
    accessor: &Accessor<GuestState>,
    instance: &Instance,
    job: Job,
) -> Result<Arc<Hold>, Failed> {
    let Job { request, responder, end, hold } = job;
    let (request, sent) = accessor.with(|mut store| {
        let (request, sent) = Request::from_http(store.data_mut().http().hooks, request);
        (request, Box::pin(sent) as BoxFuture<'static, _>)
    });
    let answered = match instance.handle(accessor, request).await {
        Ok(Ok(response)) => accessor.with(|store| response.into_http(store, sent)).map(Ok),
        Ok(Err(code)) => Ok(Err(format!("{code:?}"))),
        Err(error) => Err(error),
    };
    match answered {
        Ok(answer) => {
            // The client may have gone away.
            let _ = responder.send(answer);
            Ok(hold)
        }
        Err(error) => {
            let _ = end.send(service.failed(&error));
            Err(Failed)
        }
    }
}
