//! The clock that interrupts guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// How many ticks without a running guest pass before the thread goes to sleep. Waking it costs a system call, so
/// that short pauses between requests are not worth one.
const LINGER_TICKS: u32 = 50;

/// A thread that advances the engine's epoch while guest code runs, and sleeps while none does.
///
/// Dropping it stops and joins the thread.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Polls of guests that are going on right now.
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Starts the thread, asleep. `tick` is the longest time that a guest computes before it has to yield.
    pub(crate) fn start(engine: Engine, tick: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("wasm-epoch".into()).spawn({
            let shared = shared.clone();
            move || shared.tick(&engine, tick)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the epoch advancing until the answer is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread runs no code that panics, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tick(&self, engine: &Engine, tick: Duration) {
        let mut idle = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > LINGER_TICKS {
                self.sleep();
                idle = 0;
            }
            thread::sleep(tick);
            engine.increment_epoch();
        }
    }

    /// Sleeps until a guest runs. `asleep` is set before `running` is read, and `running()` does the reverse, so
    /// that one of the two always sees the other.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Guest code runs as long as this lives.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_sleeps_while_nothing_runs_and_wakes_for_a_guest() {
        let engine = Engine::default();
        let ticker = Ticker::start(engine, Duration::from_micros(100)).unwrap();
        let wait_for = |asleep: bool| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while ticker.shared.asleep.load(Ordering::SeqCst) != asleep {
                assert!(Instant::now() < deadline, "asleep never became {asleep}");
                thread::yield_now();
            }
        };
        wait_for(true);
        let running = ticker.running();
        wait_for(false);
        drop(running);
        wait_for(true);
    }
}
