//! Calls that ask for the same at the same time are one.

use std::collections::{HashMap, hash_map};
use std::hash::Hash;
use std::sync::Arc;

use coracle_provider::{Error, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::spawner::Spawner;

/// Work in flight, by what it is about. The work is a task: whoever drops a call gives up waiting, nothing more.
pub(super) struct SingleFlight<K, T>(Arc<Mutex<Flights<K, T>>>);

type Flights<K, T> = HashMap<K, Shared<BoxFuture<'static, Result<T>>>>;

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> SingleFlight<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Waits for the work about `key` that is going on, or else starts it.
    pub(super) async fn run<F>(&self, spawner: &Spawner, key: K, work: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (landing, landed) = oneshot::channel();
        let (flight, is_new) = match self.0.lock().entry(key.clone()) {
            hash_map::Entry::Occupied(flight) => (flight.get().clone(), false),
            hash_map::Entry::Vacant(place) => {
                let given_up = |_| Err(Error::internal("the provider gave up on a call"));
                let flight = landed.map(move |result| result.unwrap_or_else(given_up)).boxed().shared();
                (place.insert(flight).clone(), true)
            }
        };
        if is_new {
            let entry = Entry { flights: self.0.clone(), key };
            spawner.spawn(async move {
                let result = work.await;
                drop(entry);
                // Nobody may be waiting any more.
                let _ = landing.send(result);
            });
        }
        flight.await
    }
}

/// Takes the work off the list when its task ends, in whichever way.
struct Entry<K: Eq + Hash, T> {
    flights: Arc<Mutex<Flights<K, T>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_at_the_same_time_is_done_once_and_later_again() {
        let flights = SingleFlight::default();
        let runs = Arc::new(AtomicU32::new(0));
        let work = |runs: Arc<AtomicU32>| async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
        };
        let spawner = Spawner::new(tokio::runtime::Handle::current());
        let call = || flights.run(&spawner, "key", work(runs.clone()));
        let (a, b) = tokio::join!(call(), call());
        assert_eq!((a.unwrap(), b.unwrap()), (1, 1));
        assert_eq!(call().await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_leaves_the_work_and_no_entry() {
        let flights = Arc::new(SingleFlight::default());
        let done = Arc::new(AtomicU32::new(0));
        let work = {
            let done = done.clone();
            async move {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                done.store(1, Ordering::SeqCst);
                Ok(())
            }
        };
        let spawner = Spawner::new(tokio::runtime::Handle::current());
        let call = flights.run(&spawner, 7, work);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), call).await.is_err());
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_not_in_the_way() {
        let flights: SingleFlight<_, ()> = SingleFlight::default();
        let spawner = Spawner::new(tokio::runtime::Handle::current());
        let failing = flights.run(&spawner, "key", async { panic!("expected by this test") });
        assert!(failing.await.unwrap_err().message.contains("gave up"));
        flights.run(&spawner, "key", async { Ok(()) }).await.unwrap();
    }
}
