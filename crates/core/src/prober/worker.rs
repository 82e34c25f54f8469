//! One probe of one container: when it is due, and what its outcomes come to (upstream: `prober/worker.go`). Nothing
//! here waits or asks; the clock is handed in.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::results::{ProbeResult, Results, Update};
use super::{ProbeKey, ProbeType};
use crate::kuberuntime::{container_should_restart, shows_restart_of_all_containers};
use crate::pod::{PodExt, container_status, phase};
use crate::ports::ProbeOutcome;

/// The first wait between tries of a container that has just started. It doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The same for commands: each is a process in the container.
const FIRST_EXEC_RETRY: Duration = Duration::from_secs(1);

/// A container is adopted if it started that long before the agent: clocks differ (`kubeletRestartGracePeriod`).
const RESTART_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// What a worker has to know to decide.
pub(super) struct Seen<'a> {
    /// The pod's newest status.
    pub(super) status: &'a PodStatus,
    /// When the container started, as exactly as it is known.
    pub(super) started_at: Option<Timestamp>,
    /// When the agent started. Containers that started before were adopted.
    pub(super) agent_started_at: Timestamp,
    /// Now, by the wall clock.
    pub(super) wall: Timestamp,
    /// Now.
    pub(super) now: Instant,
    /// From 0 to 1: which part of a period probes of adopted containers wait, so that not all come at once.
    pub(super) spread: f64,
}

/// What to do about a probe.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// It is never to be made again.
    Stop,
    /// Something has to change first: the pod's status, or the end of the probe that runs.
    Wait,
    /// It is due then.
    At(Instant),
    /// It is due now.
    Probe(Attempt),
}

/// One try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Attempt {
    number: u64,
    started: Instant,
    /// Whether a failure counts. Success always does.
    pub(super) counts: bool,
}

pub(super) struct Worker {
    pub(super) key: ProbeKey,
    pub(super) pod: Arc<Pod>,
    settings: Settings,
    /// The container that was seen last, as the API shows its id.
    container_id: Option<String>,
    /// How many times in a row the probe has come to the same.
    run: Option<(ProbeResult, u32)>,
    /// Not to be made until there is another container.
    on_hold: bool,
    /// None until it may be made.
    schedule: Option<Schedule>,
    attempts: u64,
    in_flight: Option<(u64, AbortHandle)>,
}

struct Settings {
    initial_delay: Duration,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    is_exec: bool,
    has_startup_probe: bool,
}

impl Worker {
    pub(super) fn new(key: ProbeKey, pod: Arc<Pod>, container: &Container, probe: &Probe) -> Self {
        let settings = Settings::new(key.probe_type, container, probe);
        Self {
            key,
            pod,
            settings,
            container_id: None,
            run: None,
            on_hold: false,
            schedule: None,
            attempts: 0,
            in_flight: None,
        }
    }

    pub(super) fn container_id(&self) -> Option<&str> {
        self.container_id.as_deref()
    }

    /// Finds the container; one that was not seen before gets its initial result.
    ///
    /// What the status already says of this very container is where the probe begins: it was so before the agent
    /// restarted.
    pub(super) fn follow_container<'a>(
        &mut self,
        status: &'a PodStatus,
        results: &Results,
    ) -> Option<&'a ContainerStatus> {
        let found = find_container(status, &self.key.container)?;
        if self.container_id != found.container_id {
            self.forget_container(results);
            self.container_id.clone_from(&found.container_id);
            let runs = found.state.as_ref().is_some_and(|s| s.running.is_some());
            let initial = match self.key.probe_type {
                ProbeType::Liveness => ProbeResult::Success,
                ProbeType::Readiness if runs && found.ready => ProbeResult::Success,
                ProbeType::Readiness => ProbeResult::Failure,
                ProbeType::Startup if runs && found.started == Some(true) => ProbeResult::Success,
                ProbeType::Startup => ProbeResult::Unknown,
            };
            results.set(self.container_id()?, initial);
        }
        Some(found)
    }

    /// Decides what to do (`doProbe`, as far as the probe itself).
    pub(super) fn next(&mut self, seen: &Seen<'_>, results: &Results) -> Next {
        if phase::is_terminal(seen.status.phase.as_deref().unwrap_or_default()) {
            return Next::Stop;
        }
        // It is yet to be made.
        let Some(container) = self.follow_container(seen.status, results) else { return Next::Wait };
        let state = container.state.as_ref();
        if state.is_none_or(|s| s.running.is_none()) {
            let exit_code = state.and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
            return self.not_running(exit_code, seen.status, results);
        }
        let is_startup = self.key.probe_type == ProbeType::Startup;
        if self.pod.is_deleting() && self.key.probe_type != ProbeType::Readiness {
            return Next::Stop;
        }
        // Until the container has started only the startup probe is made, and from then on it is not.
        let started = container.started == Some(true);
        if self.on_hold || self.in_flight.is_some() || started == is_startup {
            return Next::Wait;
        }
        let (settings, probe_type) = (&self.settings, self.key.probe_type);
        let schedule = self.schedule.get_or_insert_with(|| Schedule::new(settings, probe_type, seen));
        if schedule.next > seen.now {
            return Next::At(schedule.next);
        }
        self.attempts += 1;
        let counts = schedule.counts_from <= seen.now;
        Next::Probe(Attempt { number: self.attempts, started: seen.now, counts })
    }

    fn not_running(&mut self, exit_code: Option<i32>, status: &PodStatus, results: &Results) -> Next {
        self.abort();
        // Should the very same container be seen running again, it has to show anew that it is ready. Its liveness is
        // left alone: a container that was made and not started yet must not begin its life with a failure.
        if self.key.probe_type == ProbeType::Readiness
            && let Some(id) = self.container_id()
        {
            results.set(id, ProbeResult::Failure);
        }
        let restarts = |code| self.container().is_some_and(|c| container_should_restart(c, &self.pod, code));
        let comes_back = exit_code.is_none_or(restarts) || shows_restart_of_all_containers(&self.pod, status);
        if comes_back { Next::Wait } else { Next::Stop }
    }

    /// The try has begun.
    pub(super) fn begin(&mut self, attempt: &Attempt, task: AbortHandle) {
        self.in_flight = Some((attempt.number, task));
    }

    /// Whether this try is still waited for.
    pub(super) fn is_current(&self, attempt: &Attempt) -> bool {
        self.in_flight.as_ref().is_some_and(|(number, _)| *number == attempt.number)
    }

    /// Takes an outcome in. Answers what changed by it.
    pub(super) fn complete(
        &mut self,
        attempt: &Attempt,
        outcome: &ProbeOutcome,
        now: Instant,
        results: &Results,
    ) -> Option<Update> {
        self.in_flight = None;
        let result = match outcome {
            ProbeOutcome::Success(_) | ProbeOutcome::Warning(_) => Some(ProbeResult::Success),
            ProbeOutcome::Failure(_) => Some(ProbeResult::Failure),
            // The probe itself failed: nothing is known.
            ProbeOutcome::Unknown(_) => None,
        };
        let succeeded = result == Some(ProbeResult::Success);
        if let Some(schedule) = &mut self.schedule {
            schedule.advance(attempt, succeeded, self.settings.period, now);
        }
        let result = result.filter(|_| succeeded || attempt.counts)?;
        if !self.reaches_threshold(result) {
            return None;
        }
        let is_startup = self.key.probe_type == ProbeType::Startup;
        if is_startup || (self.key.probe_type == ProbeType::Liveness && !succeeded) {
            // The container is about to be restarted, or has started for good.
            self.on_hold = true;
            self.run = None;
        }
        let id = self.container_id()?;
        results.set(id, result).then(|| Update {
            probe_type: self.key.probe_type,
            pod_uid: self.key.pod_uid.clone(),
            container_id: id.to_owned(),
            result,
        })
    }

    fn reaches_threshold(&mut self, result: ProbeResult) -> bool {
        let length = match self.run {
            Some((last, length)) if last == result => length + 1,
            _ => 1,
        };
        self.run = Some((result, length));
        let threshold = match result {
            ProbeResult::Success => self.settings.success_threshold,
            _ => self.settings.failure_threshold,
        };
        length >= threshold
    }

    /// Forgets the container and its result; a try that runs ends.
    pub(super) fn forget_container(&mut self, results: &Results) {
        self.abort();
        if let Some(id) = self.container_id.take() {
            results.remove(&id);
        }
        self.run = None;
        self.on_hold = false;
        self.schedule = None;
    }

    fn abort(&mut self) {
        if let Some((_, task)) = self.in_flight.take() {
            task.abort();
        }
    }

    fn container(&self) -> Option<&Container> {
        let mut all = self.pod.containers().iter().chain(self.pod.init_containers());
        all.find(|c| c.name == *self.key.container)
    }
}

impl Settings {
    fn new(probe_type: ProbeType, container: &Container, probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let duration = |value, default| Duration::from_secs(u64::from(seconds(value, default)));
        Self {
            initial_delay: duration(probe.initial_delay_seconds, 0),
            period: duration(probe.period_seconds, 10),
            success_threshold: seconds(probe.success_threshold, 1),
            failure_threshold: seconds(probe.failure_threshold, 3),
            is_exec: probe.exec.is_some(),
            has_startup_probe: probe_type != ProbeType::Startup && container.startup_probe.is_some(),
        }
    }
}

/// When tries of one container are due.
///
/// Upstream's first tick comes before the container has started and is lost, so that a container without an initial
/// delay has about one period before it is asked at all. Here it is asked at once and then again and again, but a
/// failure counts only after that period: nobody who starts within it is worse off, and who starts sooner is known
/// to have started sooner. Liveness begins as success, so there is nothing to ask early.
struct Schedule {
    next: Instant,
    /// Failures of tries from here on count; one such try a period.
    counts_from: Instant,
    /// Until when tries that do not count are made, and what they wait.
    early: Option<(Instant, Duration)>,
}

impl Schedule {
    fn new(settings: &Settings, probe_type: ProbeType, seen: &Seen<'_>) -> Self {
        let started_at = seen.started_at.unwrap_or(seen.wall);
        let age = Duration::try_from(seen.wall.duration_since(started_at)).unwrap_or_default();
        let first = seen.now + settings.initial_delay.saturating_sub(age);
        if seen.agent_started_at.duration_since(started_at) > RESTART_GRACE_PERIOD {
            let counts_from = first + settings.period.mul_f64(seen.spread);
            return Self { next: counts_from, counts_from, early: None };
        }
        let has_waited = settings.has_startup_probe || !settings.initial_delay.is_zero();
        let counts_from = if has_waited { first } else { first + settings.period };
        if probe_type == ProbeType::Liveness {
            return Self { next: counts_from, counts_from, early: None };
        }
        let retry = if settings.is_exec { FIRST_EXEC_RETRY } else { FIRST_RETRY };
        Self { next: first, counts_from, early: Some((first + settings.period, retry)) }
    }

    fn advance(&mut self, attempt: &Attempt, succeeded: bool, period: Duration, now: Instant) {
        if attempt.counts {
            // One that took longer than a period is followed at once, but by one only.
            self.counts_from = (self.counts_from + period).max(now);
        } else if succeeded {
            self.counts_from = attempt.started + period;
        }
        self.early = self.early.filter(|(until, _)| !succeeded && now < *until);
        self.next = match &mut self.early {
            Some((_, retry)) => {
                let next = now + *retry;
                *retry *= 2;
                next.min(self.counts_from)
            }
            None => self.counts_from,
        };
    }
}

/// The status of a container that has been made.
fn find_container<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let found = lists.into_iter().flatten().find_map(|list| container_status(list, name))?;
    found.container_id.as_ref().filter(|id| !id.is_empty()).map(|_| found)
}

#[cfg(test)]
mod tests;
