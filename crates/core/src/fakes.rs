//! What the tests of several modules share: the world behind the ports, in memory.

#![allow(unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{ContainerState, ContainerStatus, ImageSpec, PodRef, Resources, Revision};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::ports::{
    ApiError, EventRecord, EventSink, GrpcCheck, HookError, HttpGet, ProbeOutcome, ProbeTransport,
    StatusSink, StatusUpdate, TcpConnect,
};

/// A container of a pod, its sandbox named after the pod. It has just been made.
pub fn container_status(pod_uid: &str, name: &str, attempt: u32) -> ContainerStatus {
    ContainerStatus {
        id: format!("{pod_uid}-{name}-{attempt}"),
        sandbox_id: pod_uid.to_owned(),
        pod: pod_ref(pod_uid),
        name: name.to_owned(),
        attempt,
        state: ContainerState::Created,
        created_at: clock::now(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: ImageSpec::default(),
        image_id: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        mounts: Vec::new(),
        log_path: PathBuf::new(),
        resources: Resources::default(),
        revision: Revision::default(),
    }
}

pub fn pod_ref(uid: &str) -> PodRef {
    PodRef { uid: uid.to_owned(), namespace: "ns".to_owned(), name: "name".to_owned() }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct FakeSink {
    pub events: Mutex<Vec<EventRecord>>,
}

impl FakeSink {
    /// `reason: message` of every event.
    pub fn told(&self) -> Vec<String> {
        self.events.lock().iter().map(|e| format!("{}: {}", e.reason, e.message)).collect()
    }
}

impl EventSink for FakeSink {
    fn record(&self, event: EventRecord) {
        self.events.lock().push(event);
    }
}

#[async_trait]
impl StatusSink for FakeSink {
    async fn patch_status(&self, _update: &StatusUpdate) -> Result<(), ApiError> {
        Ok(())
    }
    async fn delete_pod(&self, _pod: &Pod) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Answers by path or port, after a while.
#[derive(Default)]
pub struct FakeTransport {
    answers: Mutex<HashMap<String, (Duration, ProbeOutcome)>>,
    /// What the requests of hooks come to, the next one first; success once there is nothing more.
    pub hooks: Mutex<Vec<Result<(), HookError>>>,
    /// Every GET.
    pub gets: Mutex<Vec<HttpGet>>,
    asked: Mutex<Vec<(Instant, String)>>,
}

impl FakeTransport {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn set(&self, what: &str, delay: Duration, outcome: ProbeOutcome) {
        self.answers.lock().insert(what.to_owned(), (delay, outcome));
    }

    /// When something was asked.
    pub fn asked(&self, what: &str) -> Vec<Instant> {
        self.asked.lock().iter().filter(|(_, asked)| asked == what).map(|(at, _)| *at).collect()
    }

    async fn answer(&self, what: String) -> ProbeOutcome {
        self.asked.lock().push((Instant::now(), what.clone()));
        let found = self.answers.lock().get(&what).cloned();
        let (delay, outcome) = found.unwrap_or((Duration::ZERO, ProbeOutcome::Success(String::new())));
        sleep(delay).await;
        outcome
    }
}

#[async_trait]
impl ProbeTransport for FakeTransport {
    async fn http(&self, request: &HttpGet, _timeout: Duration) -> ProbeOutcome {
        self.gets.lock().push(request.clone());
        self.answer(request.path.clone()).await
    }
    async fn tcp(&self, request: &TcpConnect, _timeout: Duration) -> ProbeOutcome {
        self.answer(request.port.to_string()).await
    }
    async fn grpc(&self, request: &GrpcCheck, _timeout: Duration) -> ProbeOutcome {
        self.answer(request.port.to_string()).await
    }
    async fn http_hook(&self, request: &HttpGet) -> Result<(), HookError> {
        self.gets.lock().push(request.clone());
        let mut hooks = self.hooks.lock();
        if hooks.is_empty() { Ok(()) } else { hooks.remove(0) }
    }
}
