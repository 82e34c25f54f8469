//! The Node object is registered and kept current (upstream: `pkg/kubelet/kubelet_node_status.go`).

use std::sync::Arc;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::nodestatus::{NodeEvent, node_status_has_changed, update_node};
use coracle_core::ports::{ApiError, EventRecord, EventSink, EventType, NodeStatusSource};
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use kube::ResourceExt;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::patch::node_status_patch;
use super::register::register;
use super::watch::NodeWatch;
use crate::client::ApiClient;

/// Upstream's `nodeStatusUpdateRetry`.
const TRIES: u32 = 5;

/// How the Node is kept current.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// `registerNode`: whether the Node is created. If not, somebody else has to.
    pub register: bool,
    /// `nodeStatusUpdateFrequency`: how often it is looked whether something changed that nobody told of; and how
    /// long a call may take.
    pub update_frequency: Duration,
    /// `nodeStatusReportFrequency`: how often the status is written even if nothing changed.
    pub report_frequency: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            register: true,
            update_frequency: Duration::from_secs(10),
            report_frequency: Duration::from_secs(300),
        }
    }
}

/// Registers this node and keeps its status current.
pub struct NodeController {
    client: ApiClient,
    watch: Arc<NodeWatch>,
    source: Arc<dyn NodeStatusSource>,
    events: Arc<dyn EventSink>,
    options: NodeOptions,
    /// The Node as our last write left it, which may be ahead of the watch.
    written: Option<Arc<Node>>,
    /// When the status is written even if nothing changed; none before the first time.
    next_report: Option<Instant>,
    was_unschedulable: bool,
}

impl NodeController {
    /// A controller of the Node that `watch` watches.
    pub fn new(
        client: &ApiClient,
        watch: Arc<NodeWatch>,
        source: Arc<dyn NodeStatusSource>,
        events: Arc<dyn EventSink>,
        options: NodeOptions,
    ) -> Self {
        Self {
            client: client.unlimited(),
            watch,
            source,
            events,
            options,
            written: None,
            next_report: None,
            was_unschedulable: false,
        }
    }

    /// Registers the node, then writes its status whenever it changes. Ends when it is dropped.
    pub async fn run(mut self) {
        let mut changed = self.source.changed();
        if self.options.register {
            let (node, events) = register(&self.client, || self.source.node()).await;
            self.record(&node, events);
            self.written = Some(Arc::new(node));
        }
        loop {
            self.update_node_status().await;
            let _ = tokio::time::timeout(self.options.update_frequency, next_change(&mut changed)).await;
        }
    }

    async fn update_node_status(&mut self) {
        for attempt in 1..=TRIES {
            match self.try_update_node_status(attempt == 1).await {
                Ok(()) => return,
                Err(error) if attempt < TRIES => debug!(node = self.watch.name(), attempt, "{error}"),
                Err(error) => warn!(node = self.watch.name(), "node status not written: {error}"),
            }
        }
    }

    async fn try_update_node_status(&mut self, from_memory: bool) -> Result<(), ApiError> {
        let current = match self.newest().filter(|_| from_memory) {
            Some(node) => node,
            None => Arc::new(self.in_time(self.client.get(None, self.watch.name())).await?),
        };
        self.record_schedulable(&current);
        let mut updated = Node::clone(&current);
        let events = update_node(&mut updated, &self.source.node(), clock::now());
        let changed = has_changed(&current, &updated);
        if !changed && self.next_report.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let patch = node_status_patch(&current, &updated).map_err(|e| ApiError::Invalid(e.to_string()))?;
        let written = self.in_time(self.client.patch_status(None, self.watch.name(), &patch)).await?;
        self.plan_next_report(changed);
        self.record(&written, events);
        self.written = Some(Arc::new(written));
        Ok(())
    }

    /// What the watch shows, unless our own last write is newer.
    fn newest(&self) -> Option<Arc<Node>> {
        let version = |node: &Arc<Node>| node.resource_version()?.parse::<u64>().ok();
        match (self.watch.node(), &self.written) {
            (Some(seen), Some(written))
                if seen.uid() == written.uid() && version(&seen) < version(written) =>
            {
                Some(Arc::clone(written))
            }
            (Some(seen), _) => Some(seen),
            (None, written) => written.clone(),
        }
    }

    /// Reports are spread out, so that nodes that started together do not stay in step.
    fn plan_next_report(&mut self, changed: bool) {
        let spread = changed || self.next_report.is_none();
        let factor = if spread { rand::rng().random_range(0.5..1.5) } else { 1.0 };
        self.next_report = Some(Instant::now() + self.options.report_frequency.mul_f64(factor));
    }

    fn record_schedulable(&mut self, node: &Node) {
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
        if unschedulable != self.was_unschedulable {
            let reason = if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let message = format!("Node {} status is now: {reason}", self.watch.name());
            self.record(node, vec![NodeEvent { event_type: EventType::Normal, reason, message }]);
        }
        self.was_unschedulable = unschedulable;
    }

    fn record(&self, node: &Node, events: Vec<NodeEvent>) {
        for NodeEvent { event_type, reason, message } in events {
            let object = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: node.metadata.name.clone(),
                uid: node.metadata.uid.clone(),
                ..ObjectReference::default()
            };
            self.events.record(EventRecord { object, event_type, reason: reason.into(), message });
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        heartbeat_in_time(self.options.update_frequency, call).await
    }
}

/// A heartbeat that takes longer than the time to the next one is given up.
pub(super) async fn heartbeat_in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(ApiError::Unavailable(format!("the apiserver did not answer within {} s", limit.as_secs_f32())))
    })
}

fn has_changed(old: &Node, new: &Node) -> bool {
    let nothing = NodeStatus::default();
    let status = |node: &'_ Node| node.status.clone().unwrap_or_else(|| nothing.clone());
    old.metadata.labels != new.metadata.labels || node_status_has_changed(&status(old), &status(new))
}

/// Waits for a change; for ever once there can be no more.
async fn next_change(changed: &mut watch::Receiver<()>) {
    if changed.changed().await.is_err() {
        std::future::pending().await
    }
}
