//! The sync loop: waits for whatever happens and tells the handler (upstream: `syncLoop`, `syncLoopIteration`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info};

use super::{Kubelet, SyncHandler};
use crate::config::{PodOperation, PodUpdate};
use crate::pleg::{PodLifeCycleEventType, PodLifecycleEvent};
use crate::pod::{PodExt, PodUid};
use crate::ports::EventType;
use crate::prober::{ProbeResult, ProbeType, Update};
use crate::recorder::reason;

/// How often pods are cleaned up (`housekeepingPeriod`).
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(2);
/// Pods that changed at the same time are handed over together, up to so many.
const PLEG_BATCH: usize = 256;

/// Everything the sync loop waits for.
pub(super) struct SyncChannels {
    pub(super) config: mpsc::Receiver<PodUpdate>,
    pub(super) pleg: mpsc::Receiver<PodLifecycleEvent>,
    pub(super) probes: mpsc::Receiver<Update>,
    pub(super) housekeeping: Interval,
}

impl Kubelet {
    /// What the sync loop waits for. Results of probes come to the first who asks.
    pub(super) fn sync_channels(
        &self,
        config: mpsc::Receiver<PodUpdate>,
        pleg: mpsc::Receiver<PodLifecycleEvent>,
    ) -> SyncChannels {
        let probes = self.probe_updates.lock().take().unwrap_or_else(|| mpsc::channel(1).1);
        let mut housekeeping = interval(HOUSEKEEPING_PERIOD);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        SyncChannels { config, pleg, probes, housekeeping }
    }

    /// Runs until the sources are gone.
    pub(super) async fn sync_loop(&self, mut channels: SyncChannels, handler: &dyn SyncHandler) {
        info!("starting kubelet main sync loop");
        if let Some(problem) = self.options.dns.check_limits_for_resolv_conf() {
            let why = reason::CHECK_LIMITS_FOR_RESOLV_CONF;
            self.recorder.event(self.node_reference(), EventType::Warning, why, problem);
        }
        loop {
            *self.sync_loop_entered.lock() = Some(Instant::now());
            if !self.sync_loop_iteration(&mut channels, handler).await {
                return;
            }
        }
    }

    /// Waits for one thing to happen and handles it. False once the sources are gone.
    ///
    /// Unlike upstream's, this loop never stops for a runtime that is in error: that is a matter of the pods of that
    /// runtime, and their workers'.
    pub(super) async fn sync_loop_iteration(
        &self,
        channels: &mut SyncChannels,
        handler: &dyn SyncHandler,
    ) -> bool {
        tokio::select! {
            update = channels.config.recv() => match update {
                Some(update) => self.dispatch(update, handler),
                None => return false,
            },
            Some(event) = channels.pleg.recv() => {
                let mut events = vec![event];
                while events.len() < PLEG_BATCH && let Ok(event) = channels.pleg.try_recv() {
                    events.push(event);
                }
                self.clean_up_containers(&events);
                let worthy = events.into_iter().filter(|event| self.is_sync_pod_worthy(event));
                self.sync_pods(worthy.map(|event| event.uid).collect(), handler, "PLEG");
            }
            Some(update) = channels.probes.recv() => self.handle_probe_update(update, handler),
            due = self.work_queue.due() => self.sync_pods(due, handler, "SYNC"),
            due = self.active_deadlines.due() => self.sync_pods(due, handler, "deadline"),
            _ = channels.housekeeping.tick() => {
                // A source that has not spoken yet may want what nobody else does.
                if self.sources_ready.all_ready() {
                    handler.handle_pod_cleanups();
                }
            }
        }
        true
    }

    /// A worker that is at work on a pod learns of what it starts from its own calls; the event may be quicker than
    /// the answer, and would only make it look once more.
    fn is_sync_pod_worthy(&self, event: &PodLifecycleEvent) -> bool {
        event.event_type != PodLifeCycleEventType::ContainerStarted
            || !self.pod_workers.is_working(&event.uid)
    }

    /// Pods of which a container has ended may have more dead ones than are kept (`cleanUpContainersInPod`).
    fn clean_up_containers(&self, events: &[PodLifecycleEvent]) {
        let died = |event: &&PodLifecycleEvent| event.event_type == PodLifeCycleEventType::ContainerDied;
        for event in events.iter().filter(died) {
            // Before collectors run, their first round finds the pod.
            let _ = self.garbage.send(event.uid.clone());
        }
    }

    fn dispatch(&self, update: PodUpdate, handler: &dyn SyncHandler) {
        let names = update.pods.iter().map(|p| p.display_name()).collect::<Vec<_>>();
        debug!(source = %update.source, op = ?update.op, pods = ?names, "SyncLoop");
        match update.op {
            PodOperation::Add => handler.handle_pod_additions(update.pods),
            // A pod that is to end is an update like others: the worker sees its deletion time.
            PodOperation::Update | PodOperation::Delete => handler.handle_pod_updates(update.pods),
            PodOperation::Remove => handler.handle_pod_removes(update.pods),
            PodOperation::Reconcile => handler.handle_pod_reconcile(update.pods),
        }
        self.sources_ready.add_source(update.source);
    }

    /// What a probe has found shows in the status before anything else happens.
    fn handle_probe_update(&self, update: Update, handler: &dyn SyncHandler) {
        let Update { probe_type, pod_uid, container_id, result } = update;
        debug!(%probe_type, uid = %pod_uid, container = container_id, %result, "SyncLoop (probe)");
        let is_good = result == ProbeResult::Success;
        match probe_type {
            ProbeType::Liveness if is_good => return,
            ProbeType::Liveness => {}
            ProbeType::Readiness => {
                self.status_manager.set_container_readiness(&pod_uid, &container_id, is_good);
            }
            ProbeType::Startup => {
                self.status_manager.set_container_startup(&pod_uid, &container_id, is_good);
            }
        }
        self.probe_manager.pod_status_set(&pod_uid);
        self.sync_pods(vec![pod_uid], handler, "probe");
    }

    fn sync_pods(&self, mut uids: Vec<PodUid>, handler: &dyn SyncHandler, why: &str) {
        uids.sort_unstable();
        uids.dedup();
        // A pod that is gone from its source is the cleanup's business.
        let pods: Vec<Arc<_>> = uids.iter().filter_map(|uid| self.pod_manager.get(uid)).collect();
        if !pods.is_empty() {
            debug!(why, pods = pods.len(), "SyncLoop");
            handler.handle_pod_syncs(pods);
        }
    }
}
