//! What connects a node with its cluster, or stands in for that (upstream: the clients of `Dependencies`, which are nil
//! in standalone mode).

use std::sync::Arc;
use std::time::Duration;

use coracle_cluster::{
    ApiClient, ApiserverSource, KubeMirrorClient, KubeObjectReader, KubeStatusSink, KubeTokenIssuer,
    LeaseController, NodeController, NodeWatch, event_sink,
};
use coracle_core::ports::{EventSink, MirrorClient, ObjectReader, PodSource, StatusSink};
use tokio::task::JoinSet;

use super::node_reporter::NodeReporter;
use super::options;
use super::standalone::Standalone;
use crate::config::Resolved;

/// Everything for which somebody else than this node is asked.
pub(super) struct Clients {
    pub(super) status_sink: Arc<dyn StatusSink>,
    pub(super) event_sink: Arc<dyn EventSink>,
    pub(super) objects: Arc<dyn ObjectReader>,
    /// None on a node that stands alone, as all that follows.
    pub(super) mirror_client: Option<Arc<dyn MirrorClient>>,
    pub(super) tokens: Option<Arc<KubeTokenIssuer>>,
    pub(super) pod_source: Option<Arc<dyn PodSource>>,
    pub(super) node: Option<Arc<NodeWatch>>,
}

impl Clients {
    /// Registers the Node, and keeps it and its lease current.
    pub(super) fn in_cluster(
        resolved: &Resolved,
        client: &Arc<ApiClient>,
        reporter: &Arc<NodeReporter>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (config, node_name) = (&resolved.config, &resolved.flags.node_name);
        let (events, writer) = event_sink(client.clone(), node_name, options::event_options(config));
        let events: Arc<dyn EventSink> = Arc::new(events);
        tasks.spawn(writer.run());
        let node = NodeWatch::start(client.clone(), node_name);
        let node_options = options::node_options(config);
        let controller =
            NodeController::new(client, node.clone(), reporter.clone(), events.clone(), node_options);
        tasks.spawn(controller.run());
        let lease_duration = Duration::from_secs(config.node_lease_duration_seconds.into());
        tasks.spawn(LeaseController::new(client, node.clone(), lease_duration).run());
        Self {
            status_sink: Arc::new(KubeStatusSink::new(client.clone())),
            event_sink: events,
            objects: Arc::new(KubeObjectReader::new(client.clone(), node.clone())),
            mirror_client: Some(Arc::new(KubeMirrorClient::new(client.clone()))),
            tokens: Some(Arc::new(KubeTokenIssuer::new(client.clone()))),
            pod_source: Some(Arc::new(ApiserverSource::new(client.clone(), node.clone()))),
            node: Some(node),
        }
    }

    /// There is no apiserver.
    pub(super) fn standalone(reporter: &Arc<NodeReporter>) -> Self {
        tracing::info!(
            "standalone mode: there is no apiserver, pods come from staticPodPath and staticPodURL"
        );
        let standalone = Arc::new(Standalone::new(reporter.clone()));
        Self {
            status_sink: standalone.clone(),
            event_sink: standalone.clone(),
            objects: standalone,
            mirror_client: None,
            tokens: None,
            pod_source: None,
            node: None,
        }
    }
}
