//! What guests compute.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::engine::Engine;

/// Processor time of a container, over all of its instances.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(AtomicU64);

impl CpuMeter {
    /// Nanoseconds so far.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A poll that lasts so long was computing, not waiting: half a tick of the engine's clock.
const COMPUTING: Duration = Duration::from_micros(500);

/// A guest's work: while it is polled the engine's clock runs, and the time is charged to its container.
///
/// A guest yields at the clock's ticks, so a poll lasts about a tick, or shorter if the guest waits for something.
/// The thread's own clock knows when the thread was not scheduled, but costs 30 times as much as the wall clock. So it is
/// read only for guests that compute, where a tick is long against it and it makes a difference.
pub(crate) struct Metered<F> {
    work: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
    engine: Arc<Engine>,
    /// Whether the last poll was long.
    computes: bool,
}

impl<F> Metered<F> {
    pub(crate) fn new(engine: Arc<Engine>, meter: Arc<CpuMeter>, work: F) -> Self {
        Self { work: Box::pin(work), meter, engine, computes: false }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _running = this.engine.ticker().running();
        let (started, on_thread) = (Instant::now(), this.computes.then(thread_time));
        let polled = this.work.as_mut().poll(cx);
        let elapsed = started.elapsed();
        let used = on_thread.map_or(elapsed, |before| thread_time().saturating_sub(before));
        this.meter.add(used);
        this.computes = elapsed >= COMPUTING;
        polled
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Computes for a while in each of many polls.
    async fn compute() {
        for _ in 0..100 {
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(2) {
                std::hint::black_box(started);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn on_a_busy_machine_only_the_time_on_the_processor_counts() {
        let end = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..3 * std::thread::available_parallelism().unwrap().get())
            .map(|_| {
                let end = end.clone();
                std::thread::spawn(move || while !end.load(Ordering::Relaxed) {})
            })
            .collect();
        let engine = Arc::new(Engine::new(1, Duration::from_millis(1)).unwrap());
        let meter = Arc::new(CpuMeter::default());
        let (started, before) = (Instant::now(), thread_time());
        Metered::new(engine, meter.clone(), compute()).await;
        let (wall, on_thread) = (started.elapsed(), thread_time().saturating_sub(before));
        end.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
        let charged = Duration::from_nanos(meter.nanoseconds());
        // The first poll is measured by the wall clock.
        assert!(charged < on_thread + Duration::from_millis(100), "{charged:?} of {on_thread:?} in {wall:?}");
        assert!(charged > on_thread.mul_f64(0.8), "{charged:?} of {on_thread:?} in {wall:?}");
    }
}
