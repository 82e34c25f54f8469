//! How often a socket may be asked (upstream: `apis/grpc/ratelimit.go`).

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Request, Status};

/// Requests a second (`DefaultQPS`).
const QPS: f64 = 100.0;
/// Requests at once (`DefaultBurstTokens`).
const BURST: f64 = 10.0;

/// Refuses what is too much. Clones count together.
#[derive(Clone)]
pub(crate) struct Limiter(Arc<Mutex<Bucket>>);

struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Bucket { tokens: BURST, filled_at: Instant::now() })))
    }

    fn allows(&self) -> bool {
        let mut bucket = self.0.lock();
        let now = Instant::now();
        let earned = now.duration_since(bucket.filled_at).as_secs_f64() * QPS;
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.filled_at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

impl tonic::service::Interceptor for Limiter {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.allows() { Ok(request) } else { Err(Status::resource_exhausted("rejected by rate limit")) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_what_the_rate_allows() {
        let limiter = Limiter::new();
        let passed = || (0..50).filter(|_| limiter.allows()).count();
        assert_eq!(passed(), 10);
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(passed(), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(passed(), 10);
    }
}
