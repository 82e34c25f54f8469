//! What becomes of an event before it is written (upstream: client-go `tools/record/events_cache.go`).

use std::borrow::Cow;
use std::num::NonZeroUsize;

use coracle_core::ports::{EventRecord, EventType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lru::LruCache;
use tokio::time::{Duration, Instant};

use coracle_core::token_bucket::TokenBucket;

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
mod tests;
