//! What must hold at every step, whatever happens.

mod statuses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::kuberuntime::all_containers_could_restart;
use coracle_core::pod::{PodExt, is_restartable_init_container, phase, restart_policy};
use coracle_provider::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod};

use self::statuses::Statuses;
use crate::history::{Fact, Record, Shown};

/// What the agent was told it has to act on after this much.
const SLACK: Duration = Duration::from_millis(20);
/// A manifest that goes before all sources have spoken is noticed by the next housekeeping after that.
const UNWANTED_SLACK: Duration = Duration::from_secs(8);
/// As long as a call to the apiserver may take.
const API_SLACK: Duration = Duration::from_secs(7);
/// As long as a sync may take that began before the deadline.
const DEADLINE_SLACK: Duration = Duration::from_secs(60);
/// What the names of ephemeral containers begin with.
pub(crate) const EPHEMERAL: &str = "eph";
/// Every container gets this long (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: i64 = 2;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) uid: String,
    pub(crate) message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: pod {}: {}", self.rule, self.uid, self.message)
    }
}

/// Follows a history and finds the first fact that must not be.
#[derive(Default)]
pub(crate) struct Checker {
    pods: BTreeMap<String, PodRecord>,
}

#[derive(Default)]
struct PodRecord {
    pod: Option<Arc<Pod>>,
    /// How often it was made: a manifest may come back.
    lives: usize,
    /// It is a static pod, and the API knows.
    is_mirrored: bool,
    /// As the API has them.
    statuses: Statuses,
    /// As the providers have them.
    instances: BTreeMap<String, Instance>,
    ready_sandboxes: BTreeSet<String>,
    /// Containers that have ended: name, ID, and whether with success.
    ended: BTreeSet<(String, String, bool)>,
    /// Containers that have ended with success, whoever asked: name, sandbox.
    succeeded: BTreeSet<(String, String)>,
    /// Instances that the agent has asked to end: how they do says nothing.
    stopped: BTreeSet<String>,
    /// Containers that a user has changed.
    changed: BTreeSet<String>,
    mounted: bool,
    /// The agent has removed the object.
    buried: bool,
    /// Something has come that no agent can have known of.
    belated: bool,
    /// Grace periods that this life of the agent was told, and when.
    graces: Vec<(Duration, i64)>,
    /// When this life of the agent was told of a terminal phase.
    told_terminal: Option<Duration>,
    /// Since when this life of the agent knows that the pod is wanted.
    wanted: Option<Duration>,
    /// Since when this life of the agent knows that the pod's manifest is gone.
    unwanted: Option<Duration>,
}

struct Instance {
    name: String,
    state: ContainerState,
}

impl Checker {
    /// Takes a fact in; says which rule it breaks, if any.
    pub(crate) fn observe(&mut self, record: &Record) -> Option<Violation> {
        if matches!(record.fact, Fact::AgentKilled) {
            for pod in self.pods.values_mut() {
                pod.graces.clear();
                pod.told_terminal = None;
                (pod.wanted, pod.unwanted) = (None, None);
                if pod.is_mirrored && pod.statuses.rejected {
                    // The next agent may find its manifest before its mirror, and room for it.
                    pod.statuses.begin_anew();
                }
            }
        }
        if record.uid.is_empty() {
            return None;
        }
        let pod = self.pods.entry(record.uid.clone()).or_default();
        let (rule, message) = pod.observe(record)?;
        Some(Violation { rule, uid: record.uid.clone(), message })
    }
}

type Broken = (&'static str, String);

impl PodRecord {
    fn observe(&mut self, record: &Record) -> Option<Broken> {
        match &record.fact {
            Fact::Created(pod) => {
                self.create(pod);
                None
            }
            Fact::Gone { by_agent } => by_agent.then(|| self.bury()).flatten(),
            Fact::Seen { grace, phase } => {
                self.graces.extend(grace.map(|seconds| (record.at, seconds)));
                if phase::is_terminal(phase) {
                    self.told_terminal.get_or_insert(record.at);
                }
                self.wanted.get_or_insert(record.at);
                self.unwanted = None;
                None
            }
            Fact::Unwanted => {
                self.wanted = None;
                self.unwanted.get_or_insert(record.at);
                None
            }
            Fact::MirrorCreated => {
                self.is_mirrored = true;
                self.statuses.begin_anew();
                None
            }
            Fact::MirrorRemoved => self.mirror_removed(record.at),
            Fact::Patched(shown) => self.patched(&record.uid, shown),
            Fact::Sandbox { id, ready } => self.sandbox(id, *ready),
            Fact::SandboxGone { id } => self.sandbox(id, false),
            Fact::CreateCalled { name, sandbox } => self.create_called(record.at, name, sandbox),
            Fact::Container { id, name, sandbox, state, exit_code } => {
                self.container(id, name, sandbox, *state, *exit_code)
            }
            Fact::ContainerGone { id } => {
                self.instances.remove(id);
                None
            }
            Fact::StopCalled { id, grace } => self.stop_called(record.at, id, *grace),
            Fact::ContainerChanged { name } => {
                self.changed.insert(name.clone());
                None
            }
            Fact::Belated => {
                self.belated = true;
                None
            }
            Fact::Mounted => {
                self.mounted = true;
                None
            }
            Fact::Unmounted => {
                self.mounted = false;
                let alive = self.alive()?;
                Some(("volumes outlive containers", format!("unmounted while {alive}")))
            }
            Fact::AgentStarted | Fact::AgentKilled | Fact::Note(_) => None,
        }
    }

    fn alive(&self) -> Option<String> {
        let running = self.instances.iter().find(|(_, i)| i.state == ContainerState::Running);
        running.map(|(id, _)| format!("container {id} runs"))
    }

    fn bury(&mut self) -> Option<Broken> {
        self.buried = true;
        let sandbox = || self.ready_sandboxes.first().map(|id| format!("sandbox {id} is ready"));
        let mounted = || self.mounted.then(|| "its volumes are mounted".to_owned());
        if self.belated {
            return None;
        }
        let left = self.alive().or_else(sandbox).or_else(mounted)?;
        Some(("the object outlives the pod", format!("deleted while {left}")))
    }

    /// What was before says nothing of a pod whose manifest has come back.
    fn create(&mut self, pod: &Arc<Pod>) {
        self.pod = Some(pod.clone());
        self.lives += 1;
        self.statuses.begin_anew();
    }

    fn mirror_removed(&self, at: Duration) -> Option<Broken> {
        let wanted = self.wanted.is_some_and(|since| since + API_SLACK < at);
        wanted.then(|| ("a mirror is kept", "it was removed, and its pod is wanted".to_owned()))
    }

    fn patched(&mut self, uid: &str, shown: &Shown) -> Option<Broken> {
        let lived_before = self.lives > 1;
        // Before its mirror is seen, only logs tell how often a container was restarted that was removed; there are none here.
        let is_gone = |name: &str| !self.instances.values().any(|instance| instance.name == name);
        let restarts_all = self.pod.as_ref().is_some_and(|pod| all_containers_could_restart(pod));
        let counts_anew = |name: &str| lived_before || self.is_mirrored && (restarts_all || is_gone(name));
        let broken = self.statuses.take(uid, shown, lived_before, counts_anew);
        let exists = self.alive().or_else(|| self.ready_sandboxes.first().cloned());
        let has_place = || exists.filter(|_| shown.rejected && !self.belated);
        let message = |what| format!("it was rejected, although it has {what}");
        broken.or_else(|| has_place().map(|what| ("who has a place keeps it", message(what))))
    }

    fn sandbox(&mut self, id: &str, ready: bool) -> Option<Broken> {
        if !ready {
            self.ready_sandboxes.remove(id);
            return None;
        }
        self.ready_sandboxes.insert(id.to_owned());
        if self.belated {
            return None;
        }
        if self.statuses.rejected {
            return Some(("a rejected pod starts nothing", format!("sandbox {id} was made")));
        }
        let message = || format!("sandbox {id} came after the object was gone");
        self.buried.then(|| ("the object outlives the pod", message()))
    }

    fn create_called(&mut self, at: Duration, name: &str, sandbox: &str) -> Option<Broken> {
        let told = |when: Duration| when + SLACK < at;
        if self.graces.first().is_some_and(|(when, _)| told(*when)) {
            return Some(("a deleted pod starts nothing", format!("{name} is made")));
        }
        if self.unwanted.is_some_and(|when| when + UNWANTED_SLACK < at) {
            return Some(("a deleted pod starts nothing", format!("{name} is made, its manifest is gone")));
        }
        if self.told_terminal.is_some_and(told) {
            return Some(("a pod that ended starts nothing", format!("{name} is made")));
        }
        if self.statuses.rejected {
            return Some(("a rejected pod starts nothing", format!("{name} is made")));
        }
        let pod = self.pod.as_ref()?;
        let deadline = self.statuses.deadline(pod);
        if deadline.is_some_and(|deadline| deadline + DEADLINE_SLACK < at) {
            return Some(("a pod starts nothing after its deadline", format!("{name} is made")));
        }
        if !pod.containers().iter().any(|c| c.name == name) {
            return None;
        }
        let open = |c: &&Container| {
            let done = (c.name.clone(), sandbox.to_owned());
            !is_restartable_init_container(c) && !self.succeeded.contains(&done)
        };
        let missing = pod.init_containers().iter().find(open)?;
        Some(("init containers come first", format!("{name} is made, {} is not done", missing.name)))
    }

    fn container(
        &mut self,
        id: &str,
        name: &str,
        sandbox: &str,
        state: ContainerState,
        exit_code: i32,
    ) -> Option<Broken> {
        let ended_well = self.has_ended_for_good(name);
        let instance = Instance { name: name.to_owned(), state };
        let before = self.instances.insert(id.to_owned(), instance).map(|i| i.state);
        if state == ContainerState::Exited {
            if exit_code == 0 {
                self.succeeded.insert((name.to_owned(), sandbox.to_owned()));
            }
            self.ended.insert((name.to_owned(), id.to_owned(), exit_code == 0));
        }
        if state != ContainerState::Running || before == Some(ContainerState::Running) {
            return None;
        }
        if self.buried && !self.belated {
            return Some(("the object outlives the pod", format!("{id} runs after the object was gone")));
        }
        let twin = self
            .instances
            .iter()
            .find(|(other, i)| *other != id && i.name == name && i.state == ContainerState::Running);
        if let Some((twin, _)) = twin {
            return Some(("one instance at a time", format!("{id} runs beside {twin}")));
        }
        (ended_well && !self.belated).then(|| ("what ended for good runs once", format!("{id} runs again")))
    }

    /// Whether a main or ephemeral container must not run again, by policies alone: rules, and init containers, are other
    /// matters.
    fn has_ended_for_good(&self, name: &str) -> bool {
        if name.starts_with(EPHEMERAL) {
            return self.ended.iter().any(|(ended, _, _)| ended == name);
        }
        let Some(pod) = &self.pod else { return false };
        if self.lives > 1 || all_containers_could_restart(pod) {
            return false;
        }
        let Some(container) = pod.containers().iter().find(|c| c.name == name) else { return false };
        if container.restart_policy_rules.is_some() || self.changed.contains(name) {
            return false;
        }
        let mut ends = self.ended.iter().filter(|(ended, _, _)| ended == name);
        match container.restart_policy.as_deref().unwrap_or(pod.restart_policy()) {
            restart_policy::NEVER => ends.next().is_some(),
            // One that was stopped was to run again, even if it ended by itself before its agent knew.
            restart_policy::ON_FAILURE => ends.any(|(_, id, well)| *well && !self.stopped.contains(id)),
            _ => false,
        }
    }

    fn stop_called(&mut self, at: Duration, id: &str, grace: Duration) -> Option<Broken> {
        self.stopped.insert(id.to_owned());
        let told = self.graces.iter().filter(|(when, _)| *when + SLACK < at).map(|(_, seconds)| *seconds);
        let most = told.min()?.max(MINIMUM_GRACE);
        let asked = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let message = || format!("{id} is to stop in {asked} s, although the pod has {most} s");
        (asked > most).then(|| ("grace periods only shrink", message()))
    }
}

#[cfg(test)]
mod tests;
