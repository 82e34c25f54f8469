//! Asking a running container to end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A wish that a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When patience ends.
    deadline: Instant,
    /// Nobody wants to wait at all.
    immediate: bool,
}

impl Stop {
    /// A wish with so much time to fulfil it.
    pub(crate) fn within(grace: Duration) -> Self {
        let now = Instant::now();
        // Far enough away for any grace period that does not fit into a clock.
        let deadline = now.checked_add(grace).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { deadline, immediate: grace.is_zero() }
    }

    pub(crate) fn deadline(self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_immediate(self) -> bool {
        self.immediate
    }
}

/// Adds a wish to those before: a later one may shorten the time, never extend it.
pub(crate) fn request(wishes: &watch::Sender<Option<Stop>>, stop: Stop) {
    wishes.send_if_modified(|current| {
        let sooner = current.is_none_or(|current| stop.deadline < current.deadline);
        if sooner {
            *current = Some(stop);
        }
        sooner
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_only_gets_shorter() {
        let (wishes, seen) = watch::channel(None);
        request(&wishes, Stop::within(Duration::from_secs(30)));
        request(&wishes, Stop::within(Duration::from_secs(60)));
        assert_eq!(seen.borrow().unwrap().deadline(), Instant::now() + Duration::from_secs(30));
        request(&wishes, Stop::within(Duration::ZERO));
        assert!(seen.borrow().unwrap().is_immediate());
        assert_eq!(seen.borrow().unwrap().deadline(), Instant::now());
        request(&wishes, Stop::within(Duration::MAX));
        assert!(seen.borrow().unwrap().is_immediate());
    }
}
