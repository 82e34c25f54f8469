//! Waiting with an end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A moment after which nothing is waited for any more.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So much from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// So many seconds from now.
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// Tries something until it works, every 50 ms. For what cannot be watched; [`crate::kubectl::Kubectl::until`] is for
/// objects. The error is that of the last try.
pub fn eventually<T>(what: &str, deadline: Deadline, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if deadline.is_over() => {
                return Err(error).with_context(|| format!("gave up waiting: {what}"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Waits until a condition holds.
pub fn until(what: &str, deadline: Deadline, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually(what, deadline, || if condition() { Ok(()) } else { bail!("not yet") })
}
