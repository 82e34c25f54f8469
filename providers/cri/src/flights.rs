//! Calls that change something: each goes on if nobody waits for it any more, and one that is made twice at once is one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use coracle_provider::{Error, Result};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

type Flight<T> = Shared<BoxFuture<'static, Result<T>>>;

/// Calls under way, by what they make.
pub(crate) struct Flights<K, T: Clone>(Arc<Mutex<HashMap<K, Flight<T>>>>);

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Waits for the call with this key: the one that is under way, else `work`.
    pub(crate) async fn join(
        &self,
        key: K,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let flight = {
            let mut flights = self.0.lock();
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (all, own) = (self.0.clone(), key.clone());
                    let flight = detached(async move {
                        let done = work.await;
                        all.lock().remove(&own);
                        done
                    });
                    let flight = flight.boxed().shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

/// Runs `work` to its end, whoever waits for it.
pub(crate) fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send + 'static {
    let task = tokio::spawn(work);
    async move {
        task.await.unwrap_or_else(|error| Err(Error::internal(format!("a call ended abnormally: {error}"))))
    }
}
