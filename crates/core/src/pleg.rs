//! The pod lifecycle event generator: turns what providers say into "look at this pod".
//!
//! One task a provider. Events write the pod cache as they come; a list of everything, at start, after lost events
//! and now and then, audits them. Upstream's generic PLEG (`pkg/kubelet/pleg/generic.go`) is a list every second.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ContainerState, Event, EventStream, SandboxState};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Delay;
use crate::clock;
use crate::metrics;
use crate::pod::PodUid;
use crate::pod_cache::PodCache;
use crate::providers::RegisteredProvider;
use crate::runtime_state::RuntimeState;

/// What happened to a pod in a runtime (`PodLifecycleEvent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLifecycleEvent {
    /// The pod.
    pub uid: PodUid,
    /// What happened.
    pub event_type: PodLifeCycleEventType,
}

/// Kinds of [`PodLifecycleEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLifeCycleEventType {
    /// A sandbox or container was made or started: the doing of a pod worker, which knows.
    ContainerStarted,
    /// A container ended, or a sandbox.
    ContainerDied,
    /// A list found something that no event had told.
    PodSync,
}

impl PodLifeCycleEventType {
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Sandbox(status) if status.state == SandboxState::Ready => Some(Self::ContainerStarted),
            Event::Container(status)
                if matches!(status.state, ContainerState::Created | ContainerState::Running) =>
            {
                Some(Self::ContainerStarted)
            }
            Event::Sandbox(_) | Event::Container(_) => Some(Self::ContainerDied),
            // What is removed was dead, and that is known.
            Event::SandboxRemoved { .. } | Event::ContainerRemoved { .. } => None,
            Event::Lagged | Event::StatusChanged => None,
        }
    }
}

/// A provider that could not be listed for this long is unhealthy (`genericPlegRelistThreshold`).
pub const RELIST_THRESHOLD: Duration = Duration::from_secs(3 * 60);

/// How often a provider is asked how it is (`updateRuntimeUp`).
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// Watches one provider. Dropping the future of [`run`](Pleg::run) ends it.
pub struct Pleg {
    registered: RegisteredProvider,
    cache: Arc<PodCache>,
    state: Arc<RuntimeState>,
    pods: mpsc::Sender<PodLifecycleEvent>,
    health_changed: watch::Sender<()>,
}

impl Pleg {
    /// A generator for one provider, which sends the pods to look at to `pods`.
    pub fn new(
        registered: RegisteredProvider,
        cache: Arc<PodCache>,
        state: Arc<RuntimeState>,
        pods: mpsc::Sender<PodLifecycleEvent>,
        health_changed: watch::Sender<()>,
    ) -> Self {
        state.register(registered.provider.name());
        Self { registered, cache, state, pods, health_changed }
    }

    /// Runs until the receiver of pods is gone.
    pub async fn run(self) {
        let mut events = self.registered.provider.subscribe();
        let mut status_due = Instant::now();
        let mut relist_due = Instant::now();
        let mut last_relist: Option<Instant> = None;
        let mut retry = Delay::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Event::Lagged) => relist_due = Instant::now(),
                    Some(Event::StatusChanged) => status_due = Instant::now(),
                    Some(event) => {
                        if !self.handle(&event).await {
                            return;
                        }
                    }
                    // The provider started over: what it said before holds until it is listed again.
                    None => {
                        events = self.resubscribe(&mut retry).await;
                        relist_due = Instant::now();
                    }
                },
                () = sleep_until(relist_due) => match self.relist().await {
                    Some(true) => {
                        if let Some(last) = last_relist.replace(Instant::now()) {
                            metrics::PLEG_RELIST_INTERVAL.observe(last.elapsed().as_secs_f64());
                        }
                        retry.reset();
                        relist_due = Instant::now() + self.registered.relist_period;
                    }
                    Some(false) => relist_due = Instant::now() + retry.next(),
                    None => return,
                },
                () = sleep_until(status_due) => {
                    self.check_status().await;
                    status_due = Instant::now() + STATUS_PERIOD;
                }
                () = self.pods.closed() => return,
            }
        }
    }

    async fn resubscribe(&self, retry: &mut Delay) -> EventStream {
        tokio::time::sleep(retry.next()).await;
        self.registered.provider.subscribe()
    }

    /// Returns whether anybody still listens.
    async fn handle(&self, event: &Event) -> bool {
        let changed = self.cache.apply(self.registered.provider.name(), event);
        match changed.zip(PodLifeCycleEventType::of(event)) {
            Some((uid, event_type)) => self.pods.send(PodLifecycleEvent { uid, event_type }).await.is_ok(),
            None => true,
        }
    }

    /// Lists everything. None if nobody listens any more, else whether it worked.
    async fn relist(&self) -> Option<bool> {
        let provider = &self.registered.provider;
        let started = Instant::now();
        let listed = metrics::runtime_operation("list_podsandbox", provider.list()).await;
        metrics::PLEG_RELIST_DURATION.observe(started.elapsed().as_secs_f64());
        let snapshot = match listed {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(provider = provider.name(), %error, "listing pods failed");
                return Some(false);
            }
        };
        let first = !self.cache.is_synced(provider.name());
        let changed = self.cache.replace_all(provider.name(), snapshot);
        self.state.relisted(provider.name());
        metrics::PLEG_LAST_SEEN
            .with_label_values::<&str>(&[])
            .set(clock::now().as_millisecond() as f64 / 1e3);
        if first {
            self.health_changed.send_replace(());
        }
        for uid in changed {
            let event = PodLifecycleEvent { uid, event_type: PodLifeCycleEventType::PodSync };
            if self.pods.send(event).await.is_err() {
                return None;
            }
        }
        Some(true)
    }

    async fn check_status(&self) {
        let provider = &self.registered.provider;
        let status = metrics::runtime_operation("status", provider.status()).await;
        if self.state.update(provider.name(), status.as_ref()) {
            match &status {
                Ok(status) => tracing::info!(provider = provider.name(), ?status, "provider health changed"),
                Err(error) => tracing::warn!(provider = provider.name(), %error, "provider is not healthy"),
            }
            self.health_changed.send_replace(());
        }
    }
}
