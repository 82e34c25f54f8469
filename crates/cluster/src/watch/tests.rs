use std::collections::VecDeque;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// A status, and the lines of a body.
type Answer = (u16, Vec<Value>);

/// Answers requests in turn, and keeps their URIs. What is left out of a watch's answer ends it.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
    }

    fn client(&self) -> ApiClient {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            async move { Ok::<_, kube::Error>(answer) }
        });
        ApiClient::through(Client::new(service, "default"))
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        self.requests.lock().push(request.uri().to_string());
        let (status, lines) = self.answers.lock().pop_front().expect("a request too many");
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .body(Body::from(body.into_bytes()))
            .unwrap()
    }

    /// Each request, as what it asks for.
    fn asked(&self) -> Vec<String> {
        let said = |uri: &String| {
            let query = uri.split_once('?').unwrap().1;
            let wanted = |pair: &&str| !pair.starts_with("timeoutSeconds") && !pair.starts_with("allowWatch");
            query.split('&').filter(wanted).collect::<Vec<_>>().join("&")
        };
        self.requests.lock().iter().map(said).collect()
    }
}

const STREAMED: &str = "fieldSelector=a%3Db&watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

fn event(type_: &str, name: &str, version: &str) -> Value {
    json!({"type": type_, "object": object(name, version)})
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version}})
}

fn end_of_list(version: &str) -> Value {
    let mut bookmark = event("BOOKMARK", "", version);
    bookmark["object"]["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    bookmark
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn error_event(code: u16, reason: &str) -> Value {
    json!({"type": "ERROR", "object": failure(code, reason)})
}

fn names(change: Change<ConfigMap>) -> String {
    let named = |object: &ConfigMap| format!("{}@{}", object.name_any(), object.resource_version().unwrap());
    match change {
        Change::Set(mut objects) => {
            objects.sort_by_key(ResourceExt::name_any);
            format!("set {}", objects.iter().map(named).collect::<Vec<_>>().join(" "))
        }
        Change::Apply(object) => format!("apply {}", named(&object)),
        Change::Delete(object) => format!("delete {}", named(&object)),
    }
}

/// The changes that a watch says, as many as there are to be, and what it asked for.
async fn follow(server: &Server, version: &str, expected: &[&str]) {
    let client = server.client();
    let mut watch =
        Watch::<ConfigMap>::new(&client, Some("ns"), "a=b".to_owned()).not_older_than(version.to_owned());
    let mut said = Vec::new();
    for _ in expected {
        said.push(names(watch.next().await));
    }
    assert_eq!(said, expected);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_and_the_watch_goes_on_from_it() {
    let server = Server::with([
        (
            200,
            vec![
                event("ADDED", "a", "1"),
                event("ADDED", "b", "2"),
                event("ADDED", "c", "3"),
                // What changes meanwhile belongs to the list.
                event("MODIFIED", "a", "4"),
                event("DELETED", "b", "5"),
                event("BOOKMARK", "", "5"),
                end_of_list("6"),
                event("MODIFIED", "c", "7"),
                event("DELETED", "a", "8"),
                event("BOOKMARK", "", "9"),
            ],
        ),
        (200, vec![event("ADDED", "d", "10")]),
    ]);
    follow(&server, "", &["set a@4 c@3", "apply c@7", "delete a@8", "apply d@10"]).await;
    let resumed = "fieldSelector=a%3Db&watch=1&resourceVersion=9";
    assert_eq!(server.asked(), [format!("{STREAMED}&resourceVersion="), resumed.to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_the_server_forgot_leads_to_a_new_list() {
    for gone in [
        (410, vec![failure(410, "Expired")]),
        (200, vec![error_event(410, "Expired")]),
        (200, vec![error_event(410, "Gone")]),
    ] {
        let server = Server::with([
            (200, vec![event("ADDED", "a", "1"), end_of_list("1")]),
            gone,
            (200, vec![event("ADDED", "b", "2"), end_of_list("2")]),
        ]);
        follow(&server, "1", &["set a@1", "set b@2"]).await;
        assert_eq!(
            server.asked(),
            [
                format!("{STREAMED}&resourceVersion=1"),
                "fieldSelector=a%3Db&watch=1&resourceVersion=1".to_owned(),
                // The first list could be as old as what was known; this one must not be.
                format!("{STREAMED}&resourceVersion="),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failures_do_not_lose_the_place() {
    let server = Server::with([
        (503, vec![failure(503, "ServiceUnavailable")]),
        (200, vec![event("ADDED", "a", "1")]),
        (200, vec![event("ADDED", "a", "1"), end_of_list("1"), event("MODIFIED", "a", "2")]),
        (500, vec![failure(500, "InternalError")]),
        (403, vec![failure(403, "Forbidden")]),
        (200, vec![error_event(500, "InternalError")]),
        (200, vec![]),
        (200, vec![event("MODIFIED", "a", "3")]),
    ]);
    follow(&server, "", &["set a@1", "apply a@2", "apply a@3"]).await;
    let asked = server.asked();
    assert!(asked[..3].iter().all(|query| query.starts_with(STREAMED)), "{asked:?}");
    assert!(asked[3..].iter().all(|query| query.ends_with("watch=1&resourceVersion=2")), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_failures_grow_and_a_watch_that_lived_needs_none() {
    let refused = || (503, vec![failure(503, "ServiceUnavailable")]);
    let mut answers = vec![refused(); 6];
    answers.push((200, vec![end_of_list("1"), event("ADDED", "a", "2")]));
    answers.push((200, vec![event("ADDED", "b", "3")]));
    let server = Server::with(answers);
    let client = server.client();
    let mut watch = Watch::<ConfigMap>::new(&client, None, "a=b".to_owned());
    let start = Instant::now();
    assert_eq!(names(watch.next().await), "set ");
    // Halves to wholes of 50, 100, 200, 400, 800, 1600 ms.
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(1575) && waited <= Duration::from_millis(3150), "{waited:?}");

    assert_eq!(names(watch.next().await), "apply a@2");
    tokio::time::advance(HEALTHY).await;
    let start = Instant::now();
    assert_eq!(names(watch.next().await), "apply b@3");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streamed_lists_is_asked_for_a_plain_one() {
    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
        "items": [object("a", "3")]});
    for refusal in [
        (422, vec![failure(422, "Invalid")]),
        (200, vec![event("ADDED", "half", "1"), error_event(500, "InternalError")]),
    ] {
        let server =
            Server::with([refusal, (200, vec![list.clone()]), (200, vec![event("MODIFIED", "a", "8")])]);
        follow(&server, "3", &["set a@3", "apply a@8"]).await;
        assert_eq!(
            server.asked()[1..],
            [
                "fieldSelector=a%3Db&resourceVersionMatch=NotOlderThan&resourceVersion=3",
                "fieldSelector=a%3Db&watch=1&resourceVersion=7",
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_is_left_out() {
    let broken = |type_: &str| json!({"type": type_, "object": {"metadata": {"name": 5}}});
    let server = Server::with([(
        200,
        vec![
            broken("ADDED"),
            event("ADDED", "a", "1"),
            end_of_list("1"),
            broken("MODIFIED"),
            event("ADDED", "b", "2"),
        ],
    )]);
    follow(&server, "", &["set a@1", "apply b@2"]).await;
}
