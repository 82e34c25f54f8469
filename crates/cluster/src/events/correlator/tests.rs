//! What becomes of events, as in upstream's tables (`tools/record/events_cache_test.go`).

use super::*;

struct Bed {
    correlator: Correlator,
    now: Timestamp,
}

impl Bed {
    fn new() -> Self {
        Self { correlator: Correlator::new("n1".to_owned()), now: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn record(&mut self, pod: &str, reason: &'static str, message: &str) -> Option<Write> {
        self.record_of(pod, None, reason, message)
    }

    /// Of one of the pod's containers.
    fn record_of(
        &mut self,
        pod: &str,
        container: Option<&str>,
        reason: &'static str,
        message: &str,
    ) -> Option<Write> {
        self.now += jiff::SignedDuration::from_millis(1);
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some(pod.to_owned()),
            uid: Some(format!("uid-{pod}")),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
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

/// An event that comes so often after the others: its container, and its message.
struct Step(&'static str, String);

#[tokio::test(start_paused = true)]
async fn event_correlator() {
    let same = |count: usize| -> Vec<Step> { (0..count).map(|_| Step("c", "me again".into())).collect() };
    let similar =
        |count: usize| -> Vec<Step> { (0..count).map(|i| Step("c", format!("similar {i}"))).collect() };
    let combined = "(combined from similar events): last";
    /// What came before, the seconds between two events, the last one, and what is written of it with which count.
    type Case = (&'static str, Vec<Step>, u64, Step, Option<(&'static str, i32)>);
    let cases: [Case; 9] = [
        ("create-a-single-event", vec![], 5, Step("c", "last".into()), Some(("last", 1))),
        ("the-same-event-should-just-count", same(1), 5, Step("c", "me again".into()), Some(("me again", 2))),
        (
            "the-same-event-should-just-count-even-if-more-than-aggregate",
            same(10),
            30,
            Step("c", "me again".into()),
            Some(("me again", 11)),
        ),
        ("the-same-event-is-spam-if-happens-too-frequently", same(26), 1, Step("c", "me again".into()), None),
        (
            "similar-events-should-aggregate-event",
            similar(9),
            5,
            Step("c", "last".into()),
            Some((combined, 1)),
        ),
        (
            "similar-events-many-times-should-count-the-aggregate",
            similar(10),
            5,
            Step("c", "last".into()),
            Some((combined, 2)),
        ),
        (
            "events-from-different-containers-do-not-aggregate",
            vec![Step("other", "last".into())],
            5,
            Step("c", "last".into()),
            Some(("last", 1)),
        ),
        (
            "similar-events-of-two-containers-are-similar",
            (0..9).map(|i| Step("other", format!("similar {i}"))).collect(),
            5,
            Step("c", "last".into()),
            Some((combined, 1)),
        ),
        (
            "similar-events-whose-interval-is-greater-than-aggregate-interval-do-not-aggregate",
            similar(9),
            601,
            Step("c", "last".into()),
            Some(("last", 1)),
        ),
    ];
    for (name, before, seconds, Step(container, message), expected) in cases {
        let mut bed = Bed::new();
        for Step(container, message) in before {
            bed.record_of("my-pod", Some(container), "Reason", &message);
            tokio::time::advance(Duration::from_secs(seconds)).await;
        }
        let written = bed.record_of("my-pod", Some(container), "Reason", &message);
        let event = written.as_ref().map(|write| match write {
            Write::Create(event) | Write::Update(event) => {
                (event.message.as_deref().unwrap(), event.count.unwrap())
            }
        });
        assert_eq!(event, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_events_of_many_pods_are_all_written() {
    let mut bed = Bed::new();
    for n in 0..30 {
        created(bed.record(&format!("pod-{n}"), "Reason", "snowflake"));
    }
}

#[tokio::test(start_paused = true)]
async fn warnings_have_a_burst_of_their_own() {
    let mut bed = Bed::new();
    for _ in 0..30 {
        bed.record("p", "BackOff", "m");
    }
    let object = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some("ns".to_owned()),
        name: Some("p".to_owned()),
        uid: Some("uid-p".to_owned()),
        ..ObjectReference::default()
    };
    let warning = EventRecord {
        object,
        event_type: EventType::Warning,
        reason: "Failed".into(),
        message: "m".to_owned(),
    };
    assert!(bed.correlator.correlate(warning, bed.now).is_some());
    assert_eq!(bed.record("p", "Started", "another reason"), None, "all Normal events of a pod share one");
}
