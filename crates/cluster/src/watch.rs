//! A watch that goes on for ever.
//!
//! Not `kube::runtime::watcher`: that one starts from any cache of any server, however old, drops deletions that happen
//! during a streamed list, has no fallback for servers without streamed lists, and leaves waiting to the caller. What is
//! left is the loop below; decoding is kube's.

use std::collections::HashMap;
use std::time::Duration;

use coracle_core::ports::ApiError;
use futures::stream::{BoxStream, StreamExt};
use kube::ResourceExt;
use kube::api::WatchEvent;
use kube::core::{ObjectList, Status};
use rand::Rng;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::{Object, collection};
use crate::backoff::Backoff;
use crate::client::{ApiClient, WatchLease};
use crate::error::{api_error, from_status};

/// A watch that lived for so long was not refused; what ends it is not worth waiting for.
const HEALTHY: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The server is asked to end a watch after half an hour to an hour, so that connections do not live for ever.
const WATCH_SECONDS: std::ops::Range<u32> = 1800..3600;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a watch says. Between two `Set`s, nothing is left out and nothing comes twice.
#[derive(Debug)]
pub(crate) enum Change<K> {
    /// All there is: at the start, and after the server forgot where the watch was.
    Set(Vec<K>),
    /// An object is new or different.
    Apply(K),
    /// An object is gone; this was its last state.
    Delete(K),
}

/// Objects of one kind, selected by fields, followed without an end.
pub(crate) struct Watch<'a, K> {
    client: &'a ApiClient,
    path: String,
    field_selector: String,
    /// The first list has to be as new as this; empty for the newest.
    not_older_than: String,
    streaming_lists: bool,
    state: State<K>,
    listed_at: Option<Instant>,
    backoff: Backoff,
}

enum State<K> {
    /// Everything has to be listed.
    Unsynced,
    /// Everything up to this version has been said.
    At(String),
    /// The list is on its way, as events.
    Listing(Stream<K>, Found<K>),
    /// Everything up to this version has been said, and the rest is on its way, since then.
    Watching(Stream<K>, String, Instant),
}

/// The stream of a watch, and its place on a connection.
struct Stream<K> {
    events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    _lease: WatchLease,
}

type Found<K> = HashMap<(Option<String>, String), K>;

impl<'a, K: Object> Watch<'a, K> {
    /// Follows what `field_selector` selects (`spec.nodeName=n1`; empty for everything).
    pub(crate) fn new(client: &'a ApiClient, namespace: Option<&str>, field_selector: String) -> Self {
        Self {
            client,
            path: collection::<K>(namespace).url_path,
            field_selector,
            not_older_than: String::new(),
            streaming_lists: true,
            state: State::Unsynced,
            listed_at: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }

    /// The first list may come from the server's cache if that is as new as `resource_version`. It spares the wait for
    /// the newest: the server looks only every 100 ms whether its cache has caught up.
    pub(crate) fn not_older_than(mut self, resource_version: String) -> Self {
        self.not_older_than = resource_version;
        self
    }

    /// The next change. Failures are logged, and tried again after a pause.
    pub(crate) async fn next(&mut self) -> Change<K> {
        loop {
            match self.try_next().await {
                Ok(change) => return change,
                Err(error) => {
                    warn!(kind = %K::kind(&()), selector = %self.field_selector, "watch failed: {error}");
                    self.pause().await;
                }
            }
        }
    }

    /// The next change, or why there is none. The call after a failure goes on where this one stopped.
    pub(crate) async fn try_next(&mut self) -> Result<Change<K>, ApiError> {
        loop {
            let change = match std::mem::replace(&mut self.state, State::Unsynced) {
                State::Unsynced => self.relist().await?,
                State::At(version) => self.resume(version).await?,
                State::Listing(stream, found) => self.listing(stream, found).await?,
                State::Watching(stream, version, since) => self.watching(stream, version, since).await?,
            };
            if let Some(change) = change {
                return Ok(change);
            }
        }
    }

    /// Waits before another attempt, longer after each failure.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.backoff.next()).await;
    }

    async fn relist(&mut self) -> Result<Option<Change<K>>, ApiError> {
        // A server that forgets each version at once must not be asked for everything in a tight loop.
        if self.listed_at.is_some_and(|at| at.elapsed() < HEALTHY) {
            self.pause().await;
        }
        if self.streaming_lists { self.begin_listing().await } else { self.list().await.map(Some) }
    }

    async fn begin_listing(&mut self) -> Result<Option<Change<K>>, ApiError> {
        let query = format!(
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={}",
            self.not_older_than
        );
        match self.open(&query).await.map_err(api_error) {
            Ok(stream) => {
                self.state = State::Listing(stream, Found::new());
                Ok(None)
            }
            // Servers without the feature say that the parameters are invalid.
            Err(ApiError::Invalid(message)) => {
                debug!(kind = %K::kind(&()), "the apiserver streams no lists: {message}");
                self.list().await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn listing(
        &mut self,
        mut stream: Stream<K>,
        mut found: Found<K>,
    ) -> Result<Option<Change<K>>, ApiError> {
        match stream.events.next().await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                found.insert(key(&object), object);
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                found.remove(&key(&object));
            }
            Some(Ok(WatchEvent::Bookmark(mark))) => {
                if mark.metadata.annotations.contains_key(INITIAL_EVENTS_END) {
                    self.state = State::Watching(stream, mark.metadata.resource_version, Instant::now());
                    return Ok(Some(self.set(found.into_values().collect())));
                }
            }
            Some(Ok(WatchEvent::Error(status))) => {
                // As client-go: whatever the server has against a streamed list, a plain one may still work.
                self.streaming_lists = false;
                return Err(from_status(&status));
            }
            Some(Err(error)) if is_undecodable(&error) => self.skip(),
            Some(Err(error)) => return Err(api_error(error)),
            None => return Err(ended()),
        }
        self.state = State::Listing(stream, found);
        Ok(None)
    }

    async fn list(&mut self) -> Result<Change<K>, ApiError> {
        let mut query = String::new();
        if !self.not_older_than.is_empty() {
            query = format!("resourceVersionMatch=NotOlderThan&resourceVersion={}", self.not_older_than);
        }
        let list: ObjectList<K> = self.client.call(self.request(&query)?).await?;
        self.state = State::At(list.metadata.resource_version.unwrap_or_default());
        // Next time, streaming gets another chance.
        self.streaming_lists = true;
        Ok(self.set(list.items))
    }

    fn set(&mut self, objects: Vec<K>) -> Change<K> {
        self.listed_at = Some(Instant::now());
        // A later list must not fall back behind what was said already.
        self.not_older_than.clear();
        Change::Set(objects)
    }

    async fn resume(&mut self, version: String) -> Result<Option<Change<K>>, ApiError> {
        match self.open(&format!("resourceVersion={version}")).await {
            Ok(stream) => self.state = State::Watching(stream, version, Instant::now()),
            Err(kube::Error::Api(status)) if is_gone(&status) => self.forgotten(&status),
            Err(error) => {
                self.state = State::At(version);
                return Err(api_error(error));
            }
        }
        Ok(None)
    }

    async fn watching(
        &mut self,
        mut stream: Stream<K>,
        version: String,
        since: Instant,
    ) -> Result<Option<Change<K>>, ApiError> {
        let event = match stream.events.next().await {
            Some(Ok(WatchEvent::Error(status))) if is_gone(&status) => {
                self.forgotten(&status);
                return Ok(None);
            }
            Some(Ok(WatchEvent::Error(status))) => {
                return self.interrupted(version, since, from_status(&status));
            }
            None => return self.interrupted(version, since, ended()),
            Some(Err(error)) if is_undecodable(&error) => {
                self.skip();
                self.state = State::Watching(stream, version, since);
                return Ok(None);
            }
            Some(Err(error)) => return self.interrupted(version, since, api_error(error)),
            Some(Ok(event)) => event,
        };
        self.backoff.reset();
        let (change, version) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = object.resource_version().unwrap_or(version);
                (Some(Change::Apply(object)), version)
            }
            WatchEvent::Deleted(object) => {
                let version = object.resource_version().unwrap_or(version);
                (Some(Change::Delete(object)), version)
            }
            WatchEvent::Bookmark(mark) => (None, mark.metadata.resource_version),
            WatchEvent::Error(_) => (None, version),
        };
        self.state = State::Watching(stream, version, since);
        Ok(change)
    }

    /// The watch ended. One that lived for a while is taken up again at once; that it ended is no failure.
    fn interrupted(
        &mut self,
        version: String,
        since: Instant,
        error: ApiError,
    ) -> Result<Option<Change<K>>, ApiError> {
        self.state = State::At(version);
        if since.elapsed() < HEALTHY {
            return Err(error);
        }
        debug!(kind = %K::kind(&()), selector = %self.field_selector, "watch goes on: {error}");
        self.backoff.reset();
        Ok(None)
    }

    fn forgotten(&mut self, status: &Status) {
        debug!(kind = %K::kind(&()), selector = %self.field_selector, "listing again: {}", status.message);
        self.state = State::Unsynced;
    }

    /// An object that does not decode is left out: it must not stop all the others.
    fn skip(&self) {
        warn!(kind = %K::kind(&()), selector = %self.field_selector, "object left out: it cannot be decoded");
    }

    async fn open(&mut self, query: &str) -> kube::Result<Stream<K>> {
        let lease = self.client.lease_for_watch()?;
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let query = format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&{query}");
        let request = self.request(&query).map_err(|e| kube::Error::Service(e.into()))?;
        let events = self.client.in_time(lease.client.request_events(request)).await?;
        Ok(Stream { events: events.boxed(), _lease: lease })
    }

    fn request(&self, query: &str) -> Result<http::Request<Vec<u8>>, ApiError> {
        // Names of objects need no escape in a query, but for the sign between field and value.
        let selector = self.field_selector.replace('=', "%3D");
        http::Request::get(format!("{}?fieldSelector={selector}&{query}", self.path))
            .body(Vec::new())
            .map_err(|e| ApiError::Invalid(e.to_string()))
    }
}

fn key<K: Object>(object: &K) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

fn is_gone(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone")
}

/// kube takes whatever is no event for a failure, and a failure has no part that must be there.
fn is_undecodable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => **status == Status::default(),
        _ => false,
    }
}

fn ended() -> ApiError {
    ApiError::Unavailable("the apiserver ended the watch".to_owned())
}

#[cfg(test)]
mod tests;
