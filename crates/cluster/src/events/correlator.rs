//! What becomes of an event before it is written (upstream: client-go `tools/record/events_cache.go`).

use std::borrow::Cow;
use std::num::NonZeroUsize;

use coracle_core::ports::{EventRecord, EventType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lru::LruCache;
use tokio::time::{Duration, Instant};

use crate::token_bucket::TokenBucket;

const CACHE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Events of one type about one object: so many at once, then one in five minutes.
const SPAM_BURST: u32 = 25;
const SPAM_QPS: f64 = 1.0 / 300.0;

/// From the tenth message on, with pauses of at most ten minutes between them, events that differ only in their message
/// are one.
const SIMILAR: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_secs(600);

const COMPONENT: &str = "kubelet";

/// The longest name of an object, less a dot and the 16 digits that follow it.
const LONGEST_PREFIX: usize = 253 - 17;

/// What to write.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    /// A new event.
    Create(Event),
    /// An event that was written before happened again: its count, its time and its message are new.
    Update(Event),
}

/// Counts what repeats, merges what is alike, and holds back what is too much.
pub(super) struct Correlator {
    node_name: String,
    similar: LruCache<Topic, Similar>,
    seen: LruCache<Key, Seen>,
    spam: LruCache<(Subject, EventType), TokenBucket>,
}

/// An object, as far as events tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// What events have to share to be alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Topic {
    subject: Subject,
    event_type: EventType,
    reason: Cow<'static, str>,
}

/// What events have to share to be the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    One { topic: Topic, field_path: Option<String>, message: String },
    AllAlike(Topic),
}

struct Similar {
    messages: Vec<String>,
    at: Instant,
}

struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
}

impl Correlator {
    pub(super) fn new(node_name: String) -> Self {
        Self {
            node_name,
            similar: LruCache::new(CACHE),
            seen: LruCache::new(CACHE),
            spam: LruCache::new(CACHE),
        }
    }

    /// What to write for this event, if anything.
    pub(super) fn correlate(&mut self, record: EventRecord, at: Timestamp) -> Option<Write> {
        let topic = Topic {
            subject: Subject::of(&record.object),
            event_type: record.event_type,
            reason: record.reason.clone(),
        };
        let (key, record) = self.merge_similar(&topic, record);
        let write = self.count(key, record, at);
        // Only now, as upstream: what is held back still counts.
        self.is_within_limit(topic).then_some(write)
    }

    fn merge_similar(&mut self, topic: &Topic, mut record: EventRecord) -> (Key, EventRecord) {
        let now = Instant::now();
        let similar =
            self.similar.get_or_insert_mut(topic.clone(), || Similar { messages: Vec::new(), at: now });
        if now.duration_since(similar.at) > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.at = now;
        if !similar.messages.contains(&record.message) {
            similar.messages.push(record.message.clone());
        }
        if similar.messages.len() < SIMILAR {
            let (field_path, message) = (record.object.field_path.clone(), record.message.clone());
            return (Key::One { topic: topic.clone(), field_path, message }, record);
        }
        similar.messages.swap_remove(0);
        record.message = format!("(combined from similar events): {}", record.message);
        (Key::AllAlike(topic.clone()), record)
    }

    fn count(&mut self, key: Key, record: EventRecord, at: Timestamp) -> Write {
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.count = seen.count.saturating_add(1);
            let (name, count, first) = (seen.name.clone(), seen.count, seen.first);
            return Write::Update(self.event(record, name, count, first, at));
        }
        let name = event_name(record.object.name.as_deref().unwrap_or_default(), at);
        self.seen.put(key, Seen { name: name.clone(), count: 1, first: at });
        Write::Create(self.event(record, name, 1, at, at))
    }

    fn is_within_limit(&mut self, topic: Topic) -> bool {
        let key = (topic.subject, topic.event_type);
        self.spam.get_or_insert_mut(key, || TokenBucket::new(SPAM_QPS, SPAM_BURST)).try_acquire()
    }

    fn event(
        &self,
        record: EventRecord,
        name: String,
        count: i32,
        first: Timestamp,
        last: Timestamp,
    ) -> Event {
        // Objects without a namespace, such as nodes, have their events in the default one.
        let namespace = record.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: record.object,
            type_: Some(record.event_type.as_str().to_owned()),
            reason: Some(record.reason.into_owned()),
            message: Some(record.message),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(last)),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node_name.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        }
    }
}

impl Subject {
    fn of(object: &ObjectReference) -> Self {
        Self {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: object.uid.clone(),
        }
    }
}

fn event_name(object: &str, at: Timestamp) -> String {
    let prefix = object.get(..LONGEST_PREFIX).unwrap_or(object).trim_end_matches(['-', '.']);
    format!("{prefix}.{:x}", at.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        correlator: Correlator,
        now: Timestamp,
    }

    impl Bed {
        fn new() -> Self {
            Self {
                correlator: Correlator::new("n1".to_owned()),
                now: "2026-01-01T00:00:00Z".parse().unwrap(),
            }
        }

        fn record(&mut self, pod: &str, reason: &'static str, message: &str) -> Option<Write> {
            self.now += jiff::SignedDuration::from_millis(1);
            let object = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some("ns".to_owned()),
                name: Some(pod.to_owned()),
                uid: Some(format!("uid-{pod}")),
                ..ObjectReference::default()
            };
            let event = EventRecord {
                object,
                event_type: EventType::Normal,
                reason: reason.into(),
                message: message.to_owned(),
            };
            self.correlator.correlate(event, self.now)
        }
    }

    fn created(write: Option<Write>) -> Event {
        let Some(Write::Create(event)) = write else { panic!("not new: {write:?}") };
        event
    }

    fn updated(write: Option<Write>) -> Event {
        let Some(Write::Update(event)) = write else { panic!("not repeated: {write:?}") };
        event
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_as_upstreams() {
        let event = created(Bed::new().record("p", "Started", "Container started"));
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": "p.18867251ee094240", "namespace": "ns"},
                "involvedObject":
                    {"apiVersion": "v1", "kind": "Pod", "namespace": "ns", "name": "p", "uid": "uid-p"},
                "type": "Normal", "reason": "Started", "message": "Container started", "count": 1,
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
                "source": {"component": "kubelet", "host": "n1"},
                "reportingComponent": "kubelet", "reportingInstance": "n1",
            })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_counted() {
        let mut bed = Bed::new();
        let first = created(bed.record("p", "BackOff", "Back-off restarting"));
        let second = updated(bed.record("p", "BackOff", "Back-off restarting"));
        assert_eq!(second.metadata.name, first.metadata.name);
        assert_eq!((second.count, second.first_timestamp), (Some(2), first.first_timestamp));
        assert!(second.last_timestamp > first.last_timestamp);
        created(bed.record("other", "BackOff", "Back-off restarting"));
        created(bed.record("p", "Killing", "Back-off restarting"));
    }

    #[tokio::test(start_paused = true)]
    async fn similar_events_become_one_after_the_ninth_message() {
        let mut bed = Bed::new();
        for n in 0..9 {
            created(bed.record("p", "Unhealthy", &format!("attempt {n}")));
        }
        let combined = created(bed.record("p", "Unhealthy", "attempt 9"));
        assert_eq!(combined.message.unwrap(), "(combined from similar events): attempt 9");
        let again = updated(bed.record("p", "Unhealthy", "attempt 10"));
        assert_eq!(again.message.unwrap(), "(combined from similar events): attempt 10");
        assert_eq!((again.metadata.name, again.count), (combined.metadata.name, Some(2)));

        tokio::time::advance(SIMILAR_FOR + Duration::from_secs(1)).await;
        assert_eq!(created(bed.record("p", "Unhealthy", "attempt 11")).message.unwrap(), "attempt 11");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_has_25_events_and_one_more_every_five_minutes() {
        let mut bed = Bed::new();
        let written = (0..40).filter(|_| bed.record("p", "BackOff", "m").is_some()).count();
        assert_eq!(written, 25);
        assert!(bed.record("other", "BackOff", "m").is_some());
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(updated(bed.record("p", "BackOff", "m")).count, Some(41));
        assert_eq!(bed.record("p", "BackOff", "m"), None);
    }

    #[test]
    fn names_stay_names() {
        let at = Timestamp::from_nanosecond(0x1234_5678_9abc_def0).unwrap();
        assert_eq!(event_name("p", at), "p.123456789abcdef0");
        let long = format!("{}-{}", "a".repeat(LONGEST_PREFIX - 1), "b".repeat(20));
        assert_eq!(event_name(&long, at), format!("{}.123456789abcdef0", "a".repeat(LONGEST_PREFIX - 1)));
    }
}
