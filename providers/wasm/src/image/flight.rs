//! Pulls in flight: those that ask for the same with the same credentials share one.

use std::future::Future;
use std::sync::Arc;

use coracle_provider::{Error, Image, PullProgress, RegistryAuth, Result};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// All pulls that run. There are as many as the pipeline allows at once, so a list will do; and credentials need not be
/// hashed.
#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<Vec<Flight>>>);

struct Flight {
    name: String,
    auth: Option<RegistryAuth>,
    progress: Progress,
    outcome: watch::Receiver<Option<Result<Image>>>,
}

/// Those who want to hear how far a pull has come.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Listeners>>);

#[derive(Default)]
struct Listeners {
    channels: Vec<mpsc::Sender<PullProgress>>,
    total_bytes: Option<u64>,
    fetched: u64,
}

impl Flights {
    /// Waits for the pull of `name` with `auth`; starts it with `pull`, as a task, if there is none.
    pub(super) async fn join<F>(
        &self,
        name: &str,
        auth: Option<RegistryAuth>,
        listener: Option<mpsc::Sender<PullProgress>>,
        pull: impl FnOnce(Progress) -> F,
    ) -> Result<Image>
    where
        F: Future<Output = Result<Image>> + Send + 'static,
    {
        let mut outcome = self.board(name, auth, listener, pull);
        let landed = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        landed.unwrap_or_else(|| Err(Error::internal(format!("the pull of {name:?} was given up"))))
    }

    fn board<F>(
        &self,
        name: &str,
        auth: Option<RegistryAuth>,
        listener: Option<mpsc::Sender<PullProgress>>,
        pull: impl FnOnce(Progress) -> F,
    ) -> watch::Receiver<Option<Result<Image>>>
    where
        F: Future<Output = Result<Image>> + Send + 'static,
    {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.iter().find(|flight| flight.name == name && flight.auth == auth) {
            flight.progress.listen(listener);
            return flight.outcome.clone();
        }
        let progress = Progress::default();
        progress.listen(listener);
        let (landing, outcome) = watch::channel(None);
        flights.push(Flight {
            name: name.to_owned(),
            auth,
            progress: progress.clone(),
            outcome: outcome.clone(),
        });
        // However the task ends, the flight leaves the list first: a pull that begins later asks the registry itself.
        let entry = Entry { flights: self.0.clone(), outcome: outcome.clone() };
        let pull = pull(progress);
        tokio::spawn(async move {
            let result = pull.await;
            drop(entry);
            landing.send_replace(Some(result));
        });
        outcome
    }
}

/// A flight's place in the list.
struct Entry {
    flights: Arc<Mutex<Vec<Flight>>>,
    outcome: watch::Receiver<Option<Result<Image>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.flights.lock().retain(|flight| !flight.outcome.same_channel(&self.outcome));
    }
}

impl Progress {
    fn listen(&self, listener: Option<mpsc::Sender<PullProgress>>) {
        let Some(listener) = listener else { return };
        let mut listeners = self.0.lock();
        if let Some(total_bytes) = listeners.total_bytes {
            // A full or closed channel holds up nothing.
            let _ = listener.try_send(PullProgress::Resolved { total_bytes });
        }
        listeners.channels.push(listener);
    }

    /// The manifest is known, and that so much is missing.
    pub(super) fn resolved(&self, total_bytes: u64) {
        let mut listeners = self.0.lock();
        listeners.total_bytes = Some(total_bytes);
        listeners.tell(PullProgress::Resolved { total_bytes });
    }

    /// That much more has arrived.
    pub(super) fn fetched(&self, bytes: usize) {
        let mut listeners = self.0.lock();
        listeners.fetched += bytes as u64;
        let bytes = listeners.fetched;
        listeners.tell(PullProgress::Fetched { bytes });
    }

    /// Everything is here.
    pub(super) fn preparing(&self) {
        self.0.lock().tell(PullProgress::Preparing);
    }
}

impl Listeners {
    fn tell(&self, progress: PullProgress) {
        for channel in &self.channels {
            let _ = channel.try_send(progress.clone());
        }
    }
}
