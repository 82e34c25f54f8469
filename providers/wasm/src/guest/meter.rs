//! What guests compute.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::engine::Engine;

/// Processor time of a container, over all of its instances.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(AtomicU64);

impl CpuMeter {
    /// Nanoseconds so far.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, time: std::time::Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A guest's work: while it is polled the engine's clock runs, and the time is charged to its container.
///
/// A guest yields at the clock's ticks, so a poll lasts about a tick, or shorter if the guest waits for something.
/// The wall clock is read, not the thread's own one, which costs 30 times as much; the difference is the time that
/// the thread was not scheduled.
pub(crate) struct Metered<F> {
    work: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
    engine: Arc<Engine>,
}

impl<F> Metered<F> {
    pub(crate) fn new(engine: Arc<Engine>, meter: Arc<CpuMeter>, work: F) -> Self {
        Self { work: Box::pin(work), meter, engine }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _running = this.engine.ticker().running();
        let started = Instant::now();
        let polled = this.work.as_mut().poll(cx);
        this.meter.add(started.elapsed());
        polled
    }
}
