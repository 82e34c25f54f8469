//! Things that are made on first use and dropped when nobody uses them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How long a value outlives its last use.
const IDLE: Duration = Duration::from_secs(60);

/// Holds a value while it is in use. An idle cell has no value, no task and no timer.
pub(super) struct IdleCell<T>(Arc<Mutex<Option<Slot<T>>>>);

struct Slot<T> {
    value: T,
    used: Instant,
}

impl<T: Clone + Send + 'static> IdleCell<T> {
    /// The value, made now if there is none. Needs a tokio runtime.
    pub(super) fn get_or_try_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut cell = self.0.lock();
        let value = match cell.take() {
            Some(slot) => slot.value,
            None => {
                let value = make()?;
                self.drop_when_idle();
                value
            }
        };
        *cell = Some(Slot { value: value.clone(), used: Instant::now() });
        Ok(value)
    }

    /// Drops the value now.
    pub(super) fn clear(&self) {
        self.0.lock().take();
    }

    /// Ends on its own, at the latest one idle time after the cell is gone.
    fn drop_when_idle(&self) {
        let cell = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut wake = Instant::now() + IDLE;
            loop {
                sleep_until(wake).await;
                let Some(cell) = cell.upgrade() else { return };
                let mut slot = cell.lock();
                let Some(used) = slot.as_ref().map(|slot| slot.used) else { return };
                wake = used + IDLE;
                if wake <= Instant::now() {
                    *slot = None;
                    return;
                }
            }
        });
    }
}

impl<T> Default for IdleCell<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_lives_as_long_as_it_is_used() {
        let cell = IdleCell::default();
        let value = Arc::new(());
        let make = || Ok::<_, ()>(value.clone());
        cell.get_or_try_make(make).unwrap();
        for _ in 0..5 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            cell.get_or_try_make(|| Err("it should be there")).unwrap();
        }
        assert_eq!(Arc::strong_count(&value), 2);
        tokio::time::sleep(IDLE + Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&value), 1);

        assert_eq!(cell.get_or_try_make(|| Err("failed")), Err("failed"));
        cell.get_or_try_make(make).unwrap();
        assert_eq!(Arc::strong_count(&value), 2);
        drop(cell);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
