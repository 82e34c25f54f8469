//! A limit on the rate of something.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A token bucket as client-go's `flowcontrol.NewTokenBucketRateLimiter`: `burst` at once, `qps` in the long run.
#[derive(Debug)]
pub struct TokenBucket {
    qps: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Below zero when callers have been promised tokens that do not exist yet.
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket. `qps` has to be positive.
    pub fn new(qps: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { qps, burst, state: Mutex::new(State { tokens: burst, at: Instant::now() }) }
    }

    /// Takes a token and waits until it exists. Callers are served in the order in which they came.
    pub async fn acquire(&self) {
        let wait = self.reserve();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token if there is one.
    pub fn try_acquire(&self) -> bool {
        let mut state = self.refilled();
        let there = state.tokens >= 1.0;
        if there {
            state.tokens -= 1.0;
        }
        there
    }

    fn reserve(&self) -> Duration {
        let mut state = self.refilled();
        state.tokens -= 1.0;
        Duration::from_secs_f64((-state.tokens).max(0.0) / self.qps)
    }

    fn refilled(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let refill = now.duration_since(state.at).as_secs_f64() * self.qps;
        state.tokens = (state.tokens + refill).min(self.burst);
        state.at = now;
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_comes_at_the_rate() {
        let bucket = TokenBucket::new(10.0, 3);
        let start = Instant::now();
        for _ in 0..3 {
            bucket.acquire().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            bucket.acquire().await;
        }
        let elapsed = start.elapsed();
        assert!(
            elapsed >= Duration::from_millis(990) && elapsed <= Duration::from_millis(1100),
            "{elapsed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_waiting_there_is_a_token_or_there_is_none() {
        let bucket = TokenBucket::new(1.0 / 300.0, 2);
        assert!(bucket.try_acquire() && bucket.try_acquire() && !bucket.try_acquire());
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!bucket.try_acquire());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(bucket.try_acquire() && !bucket.try_acquire());
    }
}
