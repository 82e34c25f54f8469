//! Events (upstream: client-go `tools/record/event.go`).

mod correlator;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_core::ports::{ApiError, EventRecord, EventSink};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::client::ApiClient;
use coracle_core::token_bucket::TokenBucket;
use correlator::{Correlator, Write};

/// client-go's `maxQueuedEvents`.
const QUEUE: usize = 1000;

/// client-go's `maxTriesPerEvent`, and the pauses between them.
const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An event rests for a moment before it is written: the status of the pod that it is about goes first.
const REST: Duration = Duration::from_millis(100);

/// How many events may be written.
#[derive(Clone, Copy, Debug)]
pub struct EventOptions {
    /// `eventRecordQPS`: a second, in the long run. Zero is no limit.
    pub qps: f64,
    /// `eventBurst`: at once.
    pub burst: u32,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self { qps: 50.0, burst: 100 }
    }
}

/// A sink, and the writer that has to run for it.
pub fn event_sink(
    client: Arc<ApiClient>,
    node_name: &str,
    options: EventOptions,
) -> (KubeEventSink, EventWriter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let limit = (options.qps > 0.0).then(|| TokenBucket::new(options.qps, options.burst));
    let correlator = Correlator::new(node_name.to_owned());
    (KubeEventSink { sender, dropped: AtomicU64::new(0) }, EventWriter { client, queue, correlator, limit })
}

/// Takes events for the apiserver: up to 1000 that are not written yet; more are dropped.
pub struct KubeEventSink {
    sender: mpsc::Sender<Recorded>,
    dropped: AtomicU64,
}

struct Recorded {
    record: EventRecord,
    at: Timestamp,
    rested: Instant,
}

impl KubeEventSink {
    /// How many events were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl EventSink for KubeEventSink {
    fn record(&self, record: EventRecord) {
        let recorded = Recorded { record, at: Timestamp::now(), rested: Instant::now() + REST };
        if let Err(error) = self.sender.try_send(recorded) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            let reason = error.into_inner().record.reason;
            // One line for each doubling: a flood of events must not become a flood of lines.
            if dropped.is_power_of_two() {
                warn!(%reason, dropped, "event dropped: too many wait to be written");
            }
        }
    }
}

/// Writes the events of a [`KubeEventSink`], one after the other.
pub struct EventWriter {
    client: Arc<ApiClient>,
    queue: mpsc::Receiver<Recorded>,
    correlator: Correlator,
    limit: Option<TokenBucket>,
}

impl EventWriter {
    /// Writes until the sink is dropped and what it took is written. Dropping this future drops what waits.
    pub async fn run(mut self) {
        while let Some(recorded) = self.queue.recv().await {
            tokio::time::sleep_until(recorded.rested).await;
            if let Some(write) = self.correlator.correlate(recorded.record, recorded.at) {
                self.write(write).await;
            }
        }
    }

    async fn write(&self, write: Write) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for attempt in 1..=TRIES {
            if let Some(limit) = &self.limit {
                limit.acquire().await;
            }
            match self.try_write(&write).await {
                Ok(()) => return,
                Err(error) if error.is_retryable() && attempt < TRIES => {
                    debug!("event not written yet: {error}");
                    tokio::time::sleep(backoff.next()).await;
                }
                // The namespace is on its way out, and its events with it.
                Err(error) if error.to_string().contains("because it is being terminated") => {
                    return debug!("event not written: {error}");
                }
                Err(error) => return warn!("event not written: {error}"),
            }
        }
    }

    async fn try_write(&self, write: &Write) -> Result<(), ApiError> {
        match write {
            Write::Create(event) => self.create(event).await,
            Write::Update(event) => match self.update(event).await {
                // Events live for an hour by default.
                Err(ApiError::NotFound(_)) => self.create(event).await,
                answer => answer,
            },
        }
    }

    async fn create(&self, event: &Event) -> Result<(), ApiError> {
        match self.client.create(event.metadata.namespace.as_deref(), event).await {
            // An earlier attempt got through, and its answer did not.
            Ok(_) | Err(ApiError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn update(&self, event: &Event) -> Result<(), ApiError> {
        let patch = json!({
            "count": event.count,
            "lastTimestamp": event.last_timestamp,
            "message": event.message,
        });
        let name = event.metadata.name.as_deref().unwrap_or_default();
        self.client.patch::<Event>(event.metadata.namespace.as_deref(), name, &patch).await.map(drop)
    }
}
