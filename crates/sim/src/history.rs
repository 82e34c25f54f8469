//! What happened, in order: told by providers, the apiserver and volumes, and checked as it is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ContainerState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::checker::{Checker, Violation};

/// Lines of a trace.
const TRACE: usize = 60;
/// When every run begins.
pub(crate) const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    AgentStarted,
    AgentKilled,
    /// A user made a pod, or put its manifest onto the node, maybe again.
    Created(Arc<Pod>),
    /// The object is gone from the apiserver: by the agent, which says that nothing of it is alive, or by force.
    Gone {
        by_agent: bool,
    },
    /// The agent was told of the pod's object.
    Seen {
        grace: Option<i64>,
        phase: String,
    },
    /// The agent was told that the manifest of a static pod is gone.
    Unwanted,
    /// The agent made the API object of a static pod.
    MirrorCreated,
    /// The agent removed the API object of a static pod, and nobody else has.
    MirrorRemoved,
    /// The agent wrote a status.
    Patched(Shown),
    Sandbox {
        id: String,
        ready: bool,
    },
    SandboxGone {
        id: String,
    },
    /// The agent asks for a container.
    CreateCalled {
        name: String,
        sandbox: String,
    },
    Container {
        id: String,
        name: String,
        sandbox: String,
        state: ContainerState,
        exit_code: i32,
    },
    ContainerGone {
        id: String,
    },
    /// A user changes the image or the resources of a container: it may be replaced, whatever its policy.
    ContainerChanged {
        name: String,
    },
    /// What an agent that was killed has asked for comes only now: nobody can know of it.
    Belated,
    /// The agent asks a container to end.
    StopCalled {
        id: String,
        grace: Duration,
    },
    Mounted,
    Unmounted,
    /// For the trace only.
    Note(String),
}

/// What a status says of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The object that took it: the pod's UID, or another one.
    pub(crate) onto: String,
    pub(crate) phase: String,
    /// It was not admitted.
    pub(crate) rejected: bool,
    /// When the agent first saw it, since the beginning.
    pub(crate) started: Option<Duration>,
    pub(crate) restarts: Vec<(String, i32)>,
    /// Ids of containers that run by it.
    pub(crate) running: Vec<String>,
    /// Ids of containers that have ended by it.
    pub(crate) ended: Vec<String>,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(pod) => {
                write!(f, "Created {}", serde_json::to_string(&pod.spec).unwrap_or_default())
            }
            Self::Note(text) => f.write_str(text),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A fact, and when and about which pod (empty: about none).
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: Duration,
    pub(crate) uid: String,
    pub(crate) fact: Fact,
}

/// Everything that happened in a run.
pub(crate) struct History {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    records: Vec<Record>,
    checker: Checker,
    lives: usize,
    violation: Option<Violation>,
}

impl History {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), inner: Mutex::default() })
    }

    pub(crate) fn tell(&self, uid: &str, fact: Fact) {
        let mut inner = self.inner.lock();
        if inner.violation.is_some() {
            return;
        }
        inner.lives += usize::from(matches!(fact, Fact::AgentStarted));
        let record = Record { at: self.start.elapsed(), uid: uid.to_owned(), fact };
        inner.violation = inner.checker.observe(&record);
        inner.records.push(record);
    }

    /// How often the agent was started.
    pub(crate) fn agent_lives(&self) -> usize {
        self.inner.lock().lives
    }

    /// Whether a call that an earlier agent gave up has done something for this pod.
    pub(crate) fn is_belated(&self, uid: &str) -> bool {
        let inner = self.inner.lock();
        inner.records.iter().any(|record| record.uid == uid && matches!(record.fact, Fact::Belated))
    }

    /// Whether this pod was to make room for another one.
    pub(crate) fn was_preempted(&self, uid: &str) -> bool {
        let is_so = |fact: &Fact| matches!(fact, Fact::Note(text) if text.starts_with("event Preempting"));
        self.inner.lock().records.iter().any(|record| record.uid == uid && is_so(&record.fact))
    }

    pub(crate) fn note(&self, uid: &str, text: impl Into<String>) {
        self.tell(uid, Fact::Note(text.into()));
    }

    /// Something is wrong that no single fact shows.
    pub(crate) fn fail(&self, violation: Violation) {
        self.inner.lock().violation.get_or_insert(violation);
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.inner.lock().violation.clone()
    }

    pub(crate) fn facts(&self) -> usize {
        self.inner.lock().records.len()
    }

    /// The same run tells the same.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for record in &self.inner.lock().records {
            (record.at, &record.uid, record.fact.to_string()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The last lines about a pod and the agent; `everything`: all lines.
    pub(crate) fn trace(&self, uid: &str, everything: bool) -> String {
        let inner = self.inner.lock();
        let concerns = |r: &&Record| everything || r.uid == uid || r.uid.is_empty();
        let lines: Vec<String> = inner
            .records
            .iter()
            .filter(concerns)
            .map(|r| format!("{:>10.3}s {:<6} {}", r.at.as_secs_f64(), r.uid, r.fact))
            .collect();
        let skipped = if everything { 0 } else { lines.len().saturating_sub(TRACE) };
        lines[skipped..].join("\n")
    }
}
