//! A container: its state, and what it takes to run it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_provider::{ContainerState, ContainerStats, ContainerStatus, MemoryStats};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::file_threads::FileThreads;
use crate::guest::{ContainerEnv, ContainerMemory, Outcome, Program, Reuse, Stop, request_stop};
use crate::logs::ContainerLog;

/// What the host itself keeps for a container, about: its listener, its log, its place in the tables. An idle service has no
/// instance; but metrics-server takes zeros for a container that was not measured, and leaves out its pod.
const LEAST_BYTES: u64 = 64 << 10;

/// A container.
pub(super) struct Container {
    pub(super) id: String,
    status: watch::Sender<Arc<ContainerStatus>>,
    stop: watch::Sender<Option<Stop>>,
    phase: Mutex<Phase>,
    /// Commands that run beside its own program.
    pub(super) commands: TaskTracker,
    /// It has ended, and those commands end with it.
    ended: CancellationToken,
}

/// How far the container has come. It goes before the status, which changes only once a record is written.
enum Phase {
    /// Nothing of it has run.
    Ready(Arc<Guest>),
    /// Parts of it may run. It ends by itself, or when it is asked to.
    Started(Arc<Guest>),
    /// Nothing of it will run any more.
    Ended,
}

/// A guest that can be started.
pub(super) struct Guest {
    pub(super) program: Arc<Program>,
    pub(super) env: Arc<ContainerEnv>,
    pub(super) serving_port: u16,
    /// How often a service uses its instances.
    pub(super) reuse: Reuse,
    /// What `env` has the context of.
    pub(super) _file_threads: Option<Arc<FileThreads>>,
}

impl Container {
    pub(super) fn new(status: ContainerStatus, guest: Guest) -> Arc<Self> {
        Self::in_phase(status, Phase::Ready(Arc::new(guest)))
    }

    /// What is left of a container of an earlier life. If it had not ended, it ended with its process.
    pub(super) fn dead(status: ContainerStatus) -> Arc<Self> {
        let status = match status.state {
            ContainerState::Exited => status,
            _ => exited(&status, Outcome::killed("the node agent that ran it went away")),
        };
        Self::in_phase(status, Phase::Ended)
    }

    fn in_phase(status: ContainerStatus, phase: Phase) -> Arc<Self> {
        Arc::new(Self {
            id: status.id.clone(),
            status: watch::Sender::new(Arc::new(status)),
            stop: watch::Sender::new(None),
            phase: Mutex::new(phase),
            commands: TaskTracker::new(),
            ended: CancellationToken::new(),
        })
    }

    pub(super) fn status(&self) -> Arc<ContainerStatus> {
        self.status.borrow().clone()
    }

    /// Makes a new status visible. Only the tables do that.
    pub(super) fn show(&self, status: Arc<ContainerStatus>) {
        self.status.send_replace(status);
    }

    /// Waits until its status says that it has ended.
    pub(super) async fn wait_for_end(&self) -> Arc<ContainerStatus> {
        let mut states = self.status.subscribe();
        match states.wait_for(|status| status.state == ContainerState::Exited).await {
            Ok(status) => status.clone(),
            // The sender is part of `self`.
            Err(_) => self.status(),
        }
    }

    pub(super) fn request_stop(&self, stop: Stop) {
        request_stop(&self.stop, stop);
    }

    /// Hears of wishes to stop.
    pub(super) fn stop_wishes(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Takes the guest to start it. None if that has happened before, or must not any more.
    pub(super) fn begin(&self) -> Option<Arc<Guest>> {
        let mut phase = self.phase.lock();
        let Phase::Ready(guest) = &*phase else { return None };
        let guest = guest.clone();
        *phase = Phase::Started(guest.clone());
        Some(guest)
    }

    /// Nothing has run after all, and it may be started again. Answers whether it has to end instead, because
    /// somebody wants it to stop.
    #[must_use]
    pub(super) fn begin_failed(&self) -> bool {
        let mut phase = self.phase.lock();
        let wanted = self.stop.borrow().is_some();
        if let Phase::Started(guest) = &*phase {
            *phase = if wanted { Phase::Ended } else { Phase::Ready(guest.clone()) };
        }
        wanted
    }

    /// Keeps a container that was never started from ever starting. Answers whether it was one.
    #[must_use]
    pub(super) fn end_unstarted(&self) -> bool {
        let mut phase = self.phase.lock();
        let ready = matches!(*phase, Phase::Ready(_));
        if ready {
            *phase = Phase::Ended;
        }
        ready
    }

    /// Its program has ended: so do the commands beside it, and it gives back what it has.
    pub(super) async fn end(&self) {
        self.ended.cancel();
        self.commands.close();
        self.commands.wait().await;
        *self.phase.lock() = Phase::Ended;
    }

    /// Cancelled once its program has ended.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether anything of it may run.
    pub(super) fn is_started(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Started(_))
    }

    /// What runs in it; none unless it runs.
    pub(super) fn guest(&self) -> Option<Arc<Guest>> {
        match &*self.phase.lock() {
            Phase::Started(guest) => Some(guest.clone()),
            Phase::Ready(_) | Phase::Ended => None,
        }
    }

    /// Its log; none unless it runs.
    pub(super) fn log(&self) -> Option<Arc<ContainerLog>> {
        self.guest().map(|guest| guest.env.stdio.log().clone())
    }

    /// Its memory; none unless it runs.
    pub(super) fn memory(&self) -> Option<Arc<ContainerMemory>> {
        self.guest().map(|guest| guest.env.memory.clone())
    }

    /// What it has used so far; none unless it runs.
    pub(super) fn stats(&self) -> Option<ContainerStats> {
        let Phase::Started(guest) = &*self.phase.lock() else { return None };
        let status = self.status();
        let bytes = guest.env.memory.used().max(LEAST_BYTES);
        Some(ContainerStats {
            id: self.id.clone(),
            pod: status.pod.clone(),
            name: status.name.clone(),
            timestamp: Timestamp::now(),
            cpu_usage_core_nanos: guest.env.cpu.nanoseconds().max(1),
            memory: MemoryStats { working_set_bytes: bytes, usage_bytes: bytes, rss_bytes: bytes },
            // An image's files are read only, and volumes are counted by themselves.
            writable_layer: None,
            traps: Some(guest.env.traps.load(Ordering::Relaxed)),
        })
    }
}

/// The status of a container that has ended just now.
pub(super) fn exited(status: &ContainerStatus, outcome: Outcome) -> ContainerStatus {
    ContainerStatus {
        state: ContainerState::Exited,
        finished_at: Some(Timestamp::now()),
        exit_code: outcome.exit_code,
        reason: outcome.reason.into(),
        message: outcome.message,
        ..status.clone()
    }
}
